"""Peak memory and time of a sharded output layer's cross-entropy, against nn.Linear and F.cross_entropy on every rank.

    python benchmarks/softmax_bench.py --ranks 2 --tokens 8192 --num_classes 64000 --hidden_size 512
    python benchmarks/softmax_bench.py --ranks 1 --device cuda --num_classes 128000 --label_smoothing 0 --all_layers

sharded        VocabParallelCrossEntropy: each rank holds V/W classes and never more than a chunk of the logits.
replicated     Each rank holds all classes in an nn.Linear, computes the whole logits of its own tokens, [N/W, V], and
               the ranks average the layer's gradient, as DistributedDataParallel does.
--all_layers also measures
chunked        the same nn.Linear with dist_s2s.linear_cross_entropy: a chunk of the logits at a time.
torch_chunked  the same with torch's own F.linear_cross_entropy, where this torch has it: chunks if nothing is smoothed.
sampled        SampledSoftmaxLoss, with 8,192 candidates. It estimates the loss, and is not compared.

All are forward and backward of the same N tokens, divided evenly among ranks of one thread each, in float32. First
they must agree on the loss and on every gradient of a few tokens. Then each is measured in processes of its own. Exits
with status 1 if they disagree, or if a rank of ``sharded`` takes more than --limit times the logits' size, N · V · 4
bytes, above what it takes when idle. Memory is what Linux says of the process, or what torch has allocated on CUDA.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.console import print_table
from common.devices import MIB, add_device, check_device, peak, resident, synchronize
from common.machine import write_results
from common.output_layers import TITLES, USUAL, Batch, Contender, Kind, Problem, layers
from dist_s2s.cost.ranks import run_on_ranks

TOLERANCE = 1e-4  # relative, of float32 sums in another order
COMPARED_TOKENS = 16  # per rank


class Measurement(TypedDict):
    """Of one rank: the seconds of each step, and how far its peak lies above its resident size while idle."""

    seconds: list[float]
    above_idle: int


def compare(group: dist.ProcessGroup, problem: Problem, kinds: Sequence[Kind] = USUAL) -> dict[str, float]:
    """Return how far losses and gradients are from those of ``replicated`` on this rank (collective).

    By name the largest difference of all ``kinds``, relative to the largest value.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    few = replace(problem, tokens=COMPARED_TOKENS * ranks)
    found: dict[Kind, list[Tensor]] = {}
    for kind in kinds:
        if kind == "sampled":
            continue
        contender, batch = Contender(kind, few, group), draw_batch(few, rank, ranks)
        loss = contender.step(batch).cpu()
        dist.all_reduce(loss, group=group)
        assert batch.hidden.grad is not None
        found[kind] = [loss, batch.hidden.grad, *(_local_gradients(contender, rank, ranks))]
    names = ("loss", "hidden gradient", "weight gradient", "bias gradient")
    expected = found.pop("replicated")
    return {
        name: float(torch.stack([_difference(its[number], expected[number]) for its in found.values()]).max())
        for number, name in enumerate(names)
    }  # nan if any is


def measure(group: dist.ProcessGroup, kind: Kind, problem: Problem, repetitions: int) -> Measurement:
    """Build a contender and run it, in a process that has done nothing else (collective).

    Idle is the same process after a few steps of a tiny contender: all code is loaded, all connections are made.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    tiny = replace(problem, tokens=8 * ranks, num_classes=1000)
    contender, batch = Contender(kind, tiny, group), draw_batch(tiny, rank, ranks)
    for _ in range(3):
        contender.step(batch)
    idle = resident(problem.device)
    contender, batch = Contender(kind, problem, group), draw_batch(problem, rank, ranks)
    seconds = []
    for _ in range(repetitions):
        synchronize(problem.device)
        dist.barrier(group)
        started = time.perf_counter()
        contender.step(batch)
        synchronize(problem.device)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "above_idle": peak(problem.device) - idle}


def draw_batch(problem: Problem, rank: int, ranks: int) -> Batch:
    """Draw the rank's share of the tokens, normal hidden states and uniform targets, from a seed of its own."""
    generator = torch.Generator().manual_seed(rank)
    tokens = problem.tokens // ranks + (rank < problem.tokens % ranks)
    hidden = torch.randn(tokens, problem.hidden_size, generator=generator)
    target = torch.randint(problem.num_classes, (tokens,), generator=generator)
    return Batch(hidden.to(problem.device).requires_grad_(), target.to(problem.device))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    problem = Problem(options.tokens, options.num_classes, options.hidden_size, options.label_smoothing, options.device)
    kinds = layers() if options.all_layers else USUAL
    with Console(stderr=True).status("comparing"):
        by_rank: list[dict[str, float]] = run_on_ranks(compare, options.ranks, problem, kinds)
    differences = {name: max(rank[name] for rank in by_rank) for name in by_rank[0]}
    wrong = [f"{name} by {value:g}" for name, value in differences.items() if not value <= TOLERANCE]
    if wrong:
        reason = f"the layers differ by more than {TOLERANCE:g}: {', '.join(wrong)}"
        print(f"no figures: {reason}", file=sys.stderr)
        return 1
    contenders = {kind: _measure_in_new_ranks(kind, problem, options) for kind in kinds}
    logits = problem.tokens * problem.num_classes * 4
    ratio = max(contenders["sharded"]["above_idle"]) / logits
    _print(contenders, logits, options)
    print(f"ours takes {ratio:.3f} of the logits' size, limit {options.limit:g}:", end=" ")
    print("passed" if ratio <= options.limit else "FAILED")
    figures = {"largest_relative_difference": differences, "logits_bytes": logits, "peak_to_logits": ratio}
    write_results(options.json, {"settings": settings_of(options), **figures, "contenders": contenders})
    return 0 if ratio <= options.limit else 1


def _measure_in_new_ranks(kind: Kind, problem: Problem, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of each step on its slowest rank, and each rank's peak above idle."""
    with Console(stderr=True).status(f"measuring {TITLES[kind]}"):
        measured: list[Measurement] = run_on_ranks(measure, options.ranks, kind, problem, options.repetitions)
    steps = zip(*(rank["seconds"] for rank in measured), strict=True)
    return {"seconds": [max(step) for step in steps], "above_idle": [rank["above_idle"] for rank in measured]}


def _difference(values: Tensor, expected: Tensor) -> Tensor:
    """Return the largest difference, relative to the largest value."""
    return ((values - expected).abs().max() / expected.abs().max()).cpu()


def _local_gradients(contender: Contender, rank: int, ranks: int) -> list[Tensor]:
    """Return the gradients of weight, [rows, H], and bias, [rows], of the rank's shard."""
    weight, bias = (parameter.grad for parameter in contender.output.parameters())
    assert weight is not None
    assert bias is not None
    if isinstance(contender.output, nn.Linear):
        weight, bias = weight.tensor_split(ranks)[rank], bias.tensor_split(ranks)[rank]
    return [weight, bias.flatten()]


def _print(contenders: dict[Kind, dict[str, Any]], logits: int, options: argparse.Namespace) -> None:
    def cells(kind: Kind, seconds: Sequence[float], above_idle: Sequence[int]) -> list[str]:
        most = max(above_idle)
        return [TITLES[kind], f"{min(seconds):.2f}", f"{most / MIB:,.0f}", f"{most / logits:.3f}"]

    print_table(
        f"N = {options.tokens:,} tokens, V = {options.num_classes:,}, H = {options.hidden_size}, "
        f"{options.ranks} ranks; logits {logits / MIB:,.0f} MiB",
        ("output layer",),
        ("seconds", "peak MiB above idle", "÷ logits"),
        (cells(kind, **result) for kind, result in contenders.items()),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument("--tokens", type=positive, default=8192, help="N, of all ranks together")
    parser.add_argument("--num_classes", type=positive, default=64_000, help="V")
    parser.add_argument("--hidden_size", type=positive, default=512, help="H")
    parser.add_argument("--label_smoothing", type=float, default=0.1, help="probability spread over the other classes")
    parser.add_argument("--all_layers", action="store_true", help="measure chunked, torch_chunked and sampled as well")
    add_device(parser)
    parser.add_argument("--repetitions", type=positive, default=1, help="steps of each; the fastest counts")
    parser.add_argument("--limit", type=float, default=0.25, help="highest ratio of peak to logits that passes")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    check_device(parser, options)
    return options


if __name__ == "__main__":
    sys.exit(main())
