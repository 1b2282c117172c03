"""Times whole training steps against the same model on replicated nn.Embedding tables, or against JoeyNMT.

    python benchmarks/train_bench.py --ranks 2 --num_embeddings 8000 250000 --hidden_size 512
    python benchmarks/train_bench.py --peers joeynmt --data train.tsv

A step is all of it: the batch made ready, lookup, forward, backward, clipping and the updates. Ours is the `train`
command's own loop. train_contenders.py describes the ways to train on nn.Embedding, train_joeynmt_peer.py how JoeyNMT
takes part. Contenders take turns, each in new processes: ours and DDP's are ranks of one thread, joined by gloo
over loopback, JoeyNMT's is one of as many threads as --peer_threads says. All begin with the same weights and see
the same batches; unless losses and gradient norms of their first steps agree, there are no timings, and the status is
1. Peak memory is that of a whole turn.

Without --data the sentences are synthetic: log-uniform tokens, 8 to 32 of them. With it, --num_embeddings is the size
of the BPE vocabulary of each side, learnt from the file by the sentencepiece of JoeyNMT's environment. That environment
is made in --peers_folder when it is needed first; PIP_EXTRA_INDEX_URL may point to PyTorch's index of CPU wheels.

After the race our parts are timed, by clocks around them, in runs of their own.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from arguments import new_file, positive
from machine import provenance
from peers import default_folder
from process_memory import available
from rich.console import Console
from train_breakdown import WARM_UP
from train_data import file_examples, make_config, predicted_bytes, zipf_examples
from train_job import OURS, Contender, Job, Measurement, run_on_ranks
from train_joeynmt import joeynmt_python, run_joeynmt, segment
from train_race import Disagreement, Problem, Result, race
from train_report import plot, print_breakdowns, print_results, title

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.translation.output import OutputName, choose_output

GIB = 2**30
BREAKDOWN_STEPS = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 1 if the contenders disagree, 2 if it cannot be done."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    results: list[Result] = []
    breakdowns: dict[int, dict[str, float]] = {}
    skipped: list[str] = []
    try:
        python = joeynmt_python(options.peers_folder) if options.peers else ""
        with Console(stderr=True).status("") as status:
            sizes = sorted(set(options.num_embeddings))
            for problem in [make_problem(options, size, python, skipped) for size in sizes]:
                results += race(problem, partial(measure, python), options.turns, options.seconds, status.update)
                status.update("where a step goes")
                job = problem.job(OURS, WARM_UP + BREAKDOWN_STEPS, breakdown=True)
                breakdowns[problem.num_embeddings] = run_on_ranks(job).parts
    except Disagreement as error:
        print(error, file=sys.stderr)
        return 1
    except (UserError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print_results(_heading(problem.config, options), results, skipped)
    print_breakdowns(breakdowns)
    if options.json is not None:
        _write(options, problem.config, results, breakdowns, skipped)
    if options.plot is not None:
        plot(results, breakdowns, options.plot)
    return 0


def make_problem(options: argparse.Namespace, size: int, python: str, skipped: list[str]) -> Problem:
    """What is to be trained at a V, by those that have room. Raises UserError if ours has none."""
    overrides = {name: str(getattr(options, name.partition(".")[2])) for name in _KEYS}
    overrides |= {"model.attention": "general"} if options.peers else {}
    config = make_config(overrides | dict(options.set))
    if options.data is None:
        examples, sizes = zipf_examples(size, config.training.seed), (size, size)
    else:
        with TemporaryDirectory(prefix="train-bench-") as folder:
            pieces = Path(folder) / options.data.name
            segment(python, options.data, pieces, size)
            examples, sizes = file_examples(pieces, size)
    output = config.model.output
    if output == "auto":
        output = choose_output(sizes[1], config.model.hidden_size, options.ranks)
    config = config.model_copy(update={"model": config.model.model_copy(update={"output": output})})
    peers = [Contender("joeynmt", threads) for threads in options.peer_threads] if options.peers else _DDP
    needed = predicted_bytes("ours", config, options.ranks, sizes) / GIB
    if needed > options.memory_limit_gib:
        raise UserError(
            f"V = {size:,}: our tables and their optimizer's state need {needed:.1f} GiB, and --memory_limit_gib is "
            f"{options.memory_limit_gib:.1f}; take a smaller --embedding_dim or --hidden_size"
        )
    contenders = [OURS]
    for contender in peers:
        needed = 0 if options.peers else predicted_bytes(contender.kind, config, options.ranks, sizes) / GIB
        if needed <= options.memory_limit_gib:
            contenders.append(contender)
        else:
            skipped.append(
                f"V = {size:,}: {title(contender.key)} left out: it needs {needed:.1f} GiB, and --memory_limit_gib is "
                f"{options.memory_limit_gib:.1f}"
            )
    return Problem(config, options.ranks, sizes, examples, tuple(contenders))


def measure(python: str, job: Job) -> Measurement:
    """Runs a job where its contender lives."""
    return run_joeynmt(python, job) if job.contender.kind == "joeynmt" else run_on_ranks(job)


_DDP = [Contender("ddp_dense"), Contender("ddp_sparse")]
# Keys of the configuration that have an option of the same name.
_KEYS = (
    "data.batch_tokens",
    "model.embedding_dim",
    "model.hidden_size",
    "model.num_layers",
    "model.output",
    "model.output_samples",
    "training.precision",
)


def _write(
    options: argparse.Namespace, config: Config, results: list[Result], parts: dict[int, dict[str, float]],
    skipped: list[str],
) -> None:  # fmt: skip
    files = ("json", "plot", "data", "peers_folder")  # of which a path would say nothing elsewhere
    settings = {key: value for key, value in vars(options).items() if key not in files}
    report = {
        **provenance(),
        "settings": {**settings, "data": options.data and options.data.name},
        "config": config.model_dump(mode="json"),
        "contenders": [asdict(result) for result in results],
        "skipped": skipped,
        "seconds_of_our_step": parts,
    }
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _heading(config: Config, options: argparse.Namespace) -> str:
    model = config.model
    return (
        f"E = {model.embedding_dim}, H = {model.hidden_size}, layers: {model.num_layers}, {model.attention} attention, "
        f"{config.data.batch_tokens:,} target tokens a step, {config.training.precision}, {options.ranks} ranks"
    )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.plot is not None and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed: pip install matplotlib")
    if options.peers and options.num_layers != 1:
        parser.error(f"--peers joeynmt needs --num_layers 1, but it is {options.num_layers}: JoeyNMT has no residuals")
    if options.peers and len(options.num_embeddings) != 1:
        parser.error("--peers joeynmt needs one --num_embeddings, such as 8000")
    if options.data is not None and not options.peers:
        parser.error("--data needs --peers joeynmt, in whose environment text is cut into BPE pieces")
    if options.data is not None and not options.data.is_file():
        parser.error(f"there is no file {options.data}")


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, but is {text}")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument("--num_embeddings", type=positive, nargs="+", default=[8000], help="V, rows of each table")
    parser.add_argument("--embedding_dim", type=positive, default=256, help="E")
    parser.add_argument("--hidden_size", type=positive, default=512, help="H")
    parser.add_argument("--num_layers", type=positive, default=1)
    parser.add_argument("--output", choices=["auto", *get_args(OutputName)], default="auto", help="output layer")
    parser.add_argument("--output_samples", type=positive, default=4096, help="candidates of a sampled output layer")
    parser.add_argument("--batch_tokens", type=positive, default=2000, help="target tokens of a step, of all ranks")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting, for all",
    )
    parser.add_argument("--turns", type=positive, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn, about; at least 3 steps")
    parser.add_argument(
        "--memory_limit_gib", type=float, default=0.9 * available() / GIB,
        help="leaves out whom it would not hold; by default most of what is free",
    )  # fmt: skip
    parser.add_argument("--peers", choices=["joeynmt"], help="instead of nn.Embedding with DDP")
    parser.add_argument(
        "--peers_folder", type=Path, default=default_folder(), help="where its environment is, or will be made"
    )
    parser.add_argument("--peer_threads", type=positive, nargs="+", default=[1, 2], help="of JoeyNMT's one process")
    parser.add_argument("--data", type=Path, metavar="FILE.tsv", help="SOURCE<TAB>TARGET lines to train on")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes all figures there")
    parser.add_argument("--plot", type=new_file, metavar="FILE.png", help="draws speed and parts there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
