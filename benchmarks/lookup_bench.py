"""Times lookup, backward and update of a row-sharded table against the other ways to train one on several ranks.

    python benchmarks/lookup_bench.py --ranks 2 --peers torchrec --json lookup.json --plot lookup.png
    python benchmarks/lookup_bench.py --sweep ids --contenders shared_memory torchrec floor --peers torchrec

Starts its own ranks, of one thread each, joined by gloo over loopback. lineup.py names who takes part, contenders_*.py
describe them. Each rank has ids and gradients of its own, and gradients are averaged over ranks. First all must compute
the same: after steps of SGD, and of RowWiseAdagrad where a system has it, rows must be those that one process computes
in float64; else the exit status is 1. Then they take turns, so that whatever else the machine does hits all of them.
Ranks begin each step at a moment that they agree on, and it lasts until the last has ended. Systems with dense
gradients use SGD, whose update of a whole table is the cheapest, and slow ones take fewer steps. Peak memory is
measured at the end, in new processes.

--sweep does that for several values of one setting. --peers torchrec makes TorchRec's environment, unless it is there,
and runs all contenders in it.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from arguments import new_file, positive
from contenders import SAME_ID, Problem
from lineup import OURS, SYSTEMS, default_names, fitting
from lookup_plot import draw
from lookup_report import Run, describe, print_run, print_sweep, skew_name, summarize
from machine import provenance
from memory_bench import peak_above_idle
from peers import default_folder, run_again, torchrec_python
from process_memory import available
from race import MOST_STEPS, RankResult, race
from rich.console import Console

from dist_s2s.cost.ranks import memory_kept, run_on_ranks

TOLERANCE = 1e-4  # of float32 sums, in another order, over ids that occur hundreds of times
REDUCED_TOLERANCE = 2.0**-6  # of rows that travel in bfloat16, which is exact to 2^-9, there and back
MEMORY_SHARE = 0.9  # of what is available, that tables may take


def skew(text: str) -> float:
    """A number, or a name: uniform ids, or all the same."""
    number = {"uniform": 0.0, "same": SAME_ID}.get(text)
    number = float(text) if number is None else number
    if math.isnan(number) or number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but is {text}")
    return number


# The settings that can be swept, how their values are read, and which are usual.
SWEEPS: dict[str, tuple[Callable[[str], Any], tuple[float, ...]]] = {
    "ranks": (positive, (1, 2, 4)),
    "num_embeddings": (positive, (10_000, 100_000, 1_000_000, 10_000_000)),
    "embedding_dim": (positive, (16, 32, 64, 128, 256, 512)),
    "ids": (positive, (64, 256, 1024, 4096, 16_384, 65_536)),
    "skew": (skew, (0.0, 1.0, SAME_ID)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 1 if the contenders disagree."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    if options.peers == "torchrec" and find_spec("torchrec") is None:
        return run_again(torchrec_python(options.peers_folder), __file__, arguments)
    names = options.contenders or default_names(sweep=options.sweep is not None)
    if options.all_variants:
        names = [*OURS, *(name for name in names if name not in OURS)]
    runs = []
    for value in options.values:
        settings = vars(options) | ({} if options.sweep is None else {options.sweep: value})
        problem = Problem(*(settings[field.name] for field in fields(Problem)))
        run, disagreement = measure(names, settings["ranks"], problem, options.repetitions)
        if disagreement:
            print(disagreement, file=sys.stderr)
            return 1
        runs.append(with_memory(run) if options.memory else run)
        print_run(runs[-1])
    if options.sweep is not None:
        print_sweep(runs, options.sweep)
    report = _report(runs, options)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(report, options.plot)
    return 0


def measure(names: Sequence[str], ranks: int, problem: Problem, repetitions: int) -> tuple[Run, str]:
    """Races those that fit into memory; also tells which of them disagree, if any."""
    taking_part = fitting(names, problem, ranks, MEMORY_SHARE * available())
    with Console(stderr=True).status(f"comparing and timing: {describe(problem, ranks)}"), memory_kept():
        answers: list[RankResult] = run_on_ranks(race, ranks, taking_part, problem, repetitions)
    run = summarize(ranks, problem, taking_part, [name for name in names if name not in taking_part], answers)
    return run, find_disagreement(run.differences)


def find_disagreement(differences: dict[str, dict[str, float]]) -> str:
    """What to tell if any contender's rows are wrong by more than rounding; else an empty text."""
    wrong = [
        f"{name} with {update} by {value:g}, over {tolerance(name):g}"
        for update, of_update in differences.items()
        for name, value in of_update.items()
        if not value <= tolerance(name)
    ]
    return f"no timings: rows differ from those that one process computes: {'; '.join(wrong)}" if wrong else ""


def tolerance(name: str) -> float:
    """How far a contender's rows may be off, relative to the largest value of a row."""
    return REDUCED_TOLERANCE if "bf16" in name else TOLERANCE


def with_memory(run: Run) -> Run:
    """The run with each contender's peak memory, measured in new ranks."""
    peaks = {}
    for result in run.results:
        with Console(stderr=True).status(f"peak memory of {SYSTEMS[result.contender].title}"):
            memory = peak_above_idle(result.contender, run.problem, run.ranks)
        peaks[result.contender] = max(rank["above_idle"] for rank in memory)
    return run.with_memory(peaks)


def _report(runs: Sequence[Run], options: argparse.Namespace) -> dict[str, Any]:
    """What the JSON file holds."""
    not_told = ("json", "plot", "peers_folder", "values")
    settings = {key: value for key, value in vars(options).items() if key not in not_told}
    peers = {"torchrec": version("torchrec")} if find_spec("torchrec") is not None else {}
    return {
        **provenance(),
        "peers": peers,
        "settings": {**settings, "skew": skew_name(options.skew)},
        "runs": [run.report() for run in runs],
    }


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses and checks the arguments; ``values`` become those of the sweep, or one None."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.plot is not None and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed: pip install matplotlib")
    if "torchrec" in (options.contenders or ()) and options.peers is None and find_spec("torchrec") is None:
        parser.error("TorchRec is not installed here; add --peers torchrec, which makes an environment for it")
    if options.sweep is None:
        if options.values is not None:
            parser.error("--values are those of a sweep; name it with --sweep, or leave them out")
        options.values = [None]
        return options
    parse, usual = SWEEPS[options.sweep]
    try:
        options.values = list(usual) if options.values is None else [parse(text) for text in options.values]
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(f"argument --values: {error}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument("--num_embeddings", type=positive, default=1_000_000, help="V, rows of the whole table")
    parser.add_argument("--embedding_dim", type=positive, default=128, help="D")
    parser.add_argument("--ids", type=positive, default=4096, help="ids per rank and step")
    parser.add_argument(
        "--skew", type=skew, default=1.0, help="1: log-uniform ids (Zipf), 0 or uniform, same: all ids are equal"
    )
    parser.add_argument("--contenders", nargs="+", choices=SYSTEMS, metavar="NAME", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--all_variants", action="store_true", help=f"all {len(OURS)} of ours, instead of those chosen")
    parser.add_argument("--sweep", choices=SWEEPS, help="measures with several values of this")
    parser.add_argument("--values", nargs="+", metavar="VALUE", help="of the sweep, instead of the usual ones")
    parser.add_argument(
        "--repetitions", type=positive, default=20, help=f"turns of each contender, of up to {MOST_STEPS} steps each"
    )
    parser.add_argument("--no_memory", dest="memory", action="store_false", help="leaves out peak memory")
    parser.add_argument("--peers", choices=("torchrec",), help="makes the environment of this system, and runs in it")
    parser.add_argument("--peers_folder", type=Path, default=default_folder(), help="where; default: %(default)s")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="writes all figures there")
    parser.add_argument("--plot", type=new_file, metavar="FILE.png", help="draws them there; needs matplotlib")
    return parser


if __name__ == "__main__":
    sys.exit(main())
