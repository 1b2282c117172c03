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
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.devices import MIB, add_device, check_device, peak, resident, synchronize
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.cost.ranks import run_on_ranks
from dist_s2s.sharded import DistributedEmbedding, SampledSoftmaxLoss, VocabParallelCrossEntropy
from dist_s2s.translation.output.linear_cross_entropy import linear_cross_entropy

Kind = Literal["sharded", "replicated", "chunked", "torch_chunked", "sampled"]
TITLES: dict[Kind, str] = {
    "sharded": "sharded (ours)",
    "replicated": "nn.Linear on every rank",
    "chunked": "nn.Linear, in chunks (ours)",
    "torch_chunked": "nn.Linear, torch in chunks",
    "sampled": "sampled (ours)",
}
USUAL: tuple[Kind, ...] = ("sharded", "replicated")
CANDIDATES = 8192  # of the sampled layer
TOLERANCE = 1e-4  # relative, of float32 sums in another order
COMPARED_TOKENS = 16  # per rank


@dataclass(frozen=True)
class Problem:
    """The size of the layer and its batch; ``tokens`` are those of all ranks together, N."""

    tokens: int
    num_classes: int
    hidden_size: int
    label_smoothing: float = 0.1
    device: str = "cpu"


class Contender:
    """An output layer and its loss, from hidden states and targets to gradients."""

    def __init__(self, kind: Kind, problem: Problem, group: dist.ProcessGroup) -> None:
        self.kind, self.group, self.smoothing = kind, group, problem.label_smoothing
        settings: dict[str, Any] = {"process_group": group, "device": problem.device}
        settings["init_std"] = problem.hidden_size**-0.5
        table = DistributedEmbedding(problem.num_classes, problem.hidden_size, seed=1, **settings)
        bias = DistributedEmbedding(problem.num_classes, 1, seed=2, **settings)
        self.output: nn.Module
        if kind == "sharded":
            self.output = VocabParallelCrossEntropy(table, bias, label_smoothing=self.smoothing)
        elif kind == "sampled":
            self.output = SampledSoftmaxLoss(table, bias, num_samples=CANDIDATES, label_smoothing=self.smoothing)
        else:
            self.output = _whole_layer(table, bias)

    def step(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Run forward and backward (collective); return this rank's loss. Gradients are those of this step alone."""
        self.output.zero_grad()
        hidden.grad = None
        loss = self._loss(hidden, target)
        loss.backward()
        if isinstance(self.output, nn.Linear) and dist.get_world_size(self.group) > 1:
            for gradient in self._gradients():
                dist.all_reduce(gradient.div_(dist.get_world_size(self.group)), group=self.group)
        return loss.detach()

    def local_gradients(self) -> list[Tensor]:
        """Return the gradients of weight, [rows, H], and bias, [rows], of the rank's shard."""
        weight, bias = self._gradients()
        if isinstance(self.output, nn.Linear):
            rank, ranks = dist.get_rank(self.group), dist.get_world_size(self.group)
            weight, bias = weight.tensor_split(ranks)[rank], bias.tensor_split(ranks)[rank]
        return [weight, bias.flatten()]

    def _gradients(self) -> list[Tensor]:
        return [gradient for each in self.output.parameters() if (gradient := each.grad) is not None]

    def _loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the tokens."""
        layer: Any = self.output
        smoothing: Any = {"label_smoothing": self.smoothing}
        match self.kind:
            case "sharded" | "sampled":
                loss = layer(hidden, target)
            case "replicated":
                loss = F.cross_entropy(layer(hidden), target, **smoothing)
            case "chunked":
                loss = linear_cross_entropy(layer, hidden, target, ignore_index=-100, **smoothing) / len(target)
            case "torch_chunked":
                smoothing["options"] = nn.LinearCrossEntropyOptions()
                loss = F.linear_cross_entropy(hidden, layer.weight, target, linear_bias=layer.bias, **smoothing)
        return cast(Tensor, loss)


def layers() -> tuple[Kind, ...]:
    """Return all layers that this torch has."""
    return tuple(kind for kind in get_args(Kind) if kind != "torch_chunked" or hasattr(F, "linear_cross_entropy"))


def _whole_layer(table: DistributedEmbedding, bias: DistributedEmbedding) -> nn.Linear:
    """Return the same output layer on one rank (collective)."""
    layer = nn.Linear(table.embedding_dim, table.num_embeddings, device="meta")
    weight, column = (cast(nn.Embedding, each.to_embedding()).weight.detach() for each in (table, bias))
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(column[:, 0])
    return layer


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
        contender, (hidden, target) = Contender(kind, few, group), draw_batch(few, rank, ranks)
        loss = contender.step(hidden, target).cpu()
        dist.all_reduce(loss, group=group)
        found[kind] = [loss, cast(Tensor, hidden.grad), *contender.local_gradients()]
    names = ("loss", "hidden gradient", "weight gradient", "bias gradient")
    differences = dict.fromkeys(names, torch.zeros(()))
    expected = found.pop("replicated")
    for values in found.values():
        for name, its, right in zip(names, values, expected, strict=True):
            difference = ((its - right).abs().max() / right.abs().max()).cpu()
            differences[name] = differences[name].maximum(difference)  # nan if any is
    return {name: float(difference) for name, difference in differences.items()}


def measure(group: dist.ProcessGroup, kind: Kind, problem: Problem, repetitions: int) -> dict[str, Any]:
    """Return seconds of each step and the peak above idle, in a process that has done nothing else (collective).

    Idle is the same process after a few steps of a tiny contender: all code is loaded, all connections are made.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    tiny = replace(problem, tokens=8 * ranks, num_classes=1000)
    contender, batch = Contender(kind, tiny, group), draw_batch(tiny, rank, ranks)
    for _ in range(3):
        contender.step(*batch)
    idle = resident(problem.device)
    contender, batch = Contender(kind, problem, group), draw_batch(problem, rank, ranks)
    seconds = []
    for _ in range(repetitions):
        synchronize(problem.device)
        dist.barrier(group)
        started = time.perf_counter()
        contender.step(*batch)
        synchronize(problem.device)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "above_idle": peak(problem.device) - idle}


def draw_batch(problem: Problem, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
    """Draw normal hidden states, [n, H], and uniform targets, [n], for the rank's share of the tokens."""
    generator = torch.Generator().manual_seed(rank)
    tokens = problem.tokens // ranks + (rank < problem.tokens % ranks)
    hidden = torch.randn(tokens, problem.hidden_size, generator=generator)
    target = torch.randint(problem.num_classes, (tokens,), generator=generator)
    return hidden.to(problem.device).requires_grad_(), target.to(problem.device)


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
        measured: list[dict[str, Any]] = run_on_ranks(measure, options.ranks, kind, problem, options.repetitions)
    steps = zip(*(rank["seconds"] for rank in measured), strict=True)
    return {"seconds": [max(step) for step in steps], "above_idle": [rank["above_idle"] for rank in measured]}


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
    run_command(main)
