"""What is each of some tricks worth, in scores after the same minutes?

    python benchmarks/ablation_bench.py --config configs/multi30k-de-en.yaml --tricks FILE --minutes 20 --folder FOLDER

FILE is benchmarks/tricks/multi30k-de-en.yaml, or one like it.

The file of tricks names each row and the keys that it sets on top of the base:

    base: {}
    no label smoothing: {training.label_smoothing: 0.0}
    average: {training.ema_decay: 0.999}

Each row and seed is one training by `dist-s2s train`, one after the other, and is then scored on the test data by
`dist-s2s evaluate`, greedily and with a beam. With `--at_once 2 --ranks 1` there are two trainings at a time, each on
half of the cores: all of them lose the same to their neighbour. What stands in FOLDER already is not trained again, so
a stopped benchmark goes on. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, stdev
from typing import Any

import yaml

from common import commands
from common.arguments import add_outputs, existing_file, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command

Overrides = Mapping[str, object]
SCORES = ("bleu", "chrf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    tricks = read_tricks(options.tricks)
    options.folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[dict[str, Any]]] = {}
    settings = settings_of(options, "folder", "config", "tricks") | {"config": options.config.name}
    runs = [(name, seed) for seed in range(1, options.seeds + 1) for name in tricks]

    def run(name_and_seed: tuple[str, int]) -> dict[str, Any]:
        name, seed = name_and_seed
        run_dir = options.folder / f"{folder_name(name)}-{seed}"
        return measure(run_dir, {**tricks[name], "training.seed": seed}, options)

    with pool(options.at_once) as workers:
        for (name, _), found in zip(runs, workers.map(run, runs), strict=True):
            figures.setdefault(name, []).append(found)
            write_results(options.json, {"settings": settings, "tricks": tricks, "runs": figures})
    headings = ("BLEU", "chrF", "BLEU, greedy", "steps", "minutes")
    title = f"{options.minutes} minutes each, beam {options.beam_size}, {options.seeds} seeds"
    print_table(title, ("",), headings, [[name, *in_words(runs)] for name, runs in figures.items()])
    return 0


def pool(workers: int) -> ThreadPoolExecutor:
    """Return threads each of which, and the programs that it starts, stays on its share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) % workers:
        raise SystemExit(f"--at_once {workers} does not divide the {len(cores)} cores of this machine")
    shares = SimpleQueue[list[int]]()
    for number in range(workers):
        shares.put(cores[number::workers])
    # On Linux an affinity is that of a thread, and its programs inherit it.
    return ThreadPoolExecutor(workers, initializer=lambda: os.sched_setaffinity(0, shares.get()))


def folder_name(trick: str) -> str:
    """Return a row's name with nothing but letters and digits, and hyphens between them."""
    return re.sub(r"[\W_]+", "-", trick)


def read_tricks(file: Path) -> dict[str, Overrides]:
    """Return the keys that each row sets."""
    tricks = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(tricks, dict) or not all(isinstance(each, dict) for each in tricks.values()):
        raise SystemExit(
            f"{file} must map names to keys and their values: no smoothing: {{training.label_smoothing: 0}}"
        )
    names = [folder_name(name) for name in tricks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SystemExit(f"{file} has two rows whose runs would be called {twice}: give one another name")
    return tricks


def measure(run_dir: Path, overrides: Overrides, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score one run, unless it has been; return its figures."""
    summary = run_dir / "summary.json"
    commands.train_once(run_dir, options.config, options.ranks, {"training.max_minutes": options.minutes, **overrides})
    scores = run_dir / f"scores-beam-{options.beam_size}.json"
    if not scores.exists():
        commands.command("evaluate", "--run", run_dir, "--beam_size", options.beam_size, "--json", scores)
    greedy, found = (json.loads(file.read_text(encoding="utf-8")) for file in (summary, scores))
    return {
        "seed": overrides["training.seed"],
        "greedy": {score: greedy[score] for score in SCORES},
        "beam": {score: found[score] for score in SCORES},
        "signature": found["signature"],
        "steps": greedy["steps"],
        "seconds": greedy["seconds"],
        "tokens_per_second": greedy["tokens_per_second"],
    }


def in_words(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a row of the table: means over seeds, with the spread where there is one."""

    def of(values: Sequence[float]) -> str:
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        return f"{mean(values):.2f}{spread}"

    scores = [of([run["beam"][score] for run in runs]) for score in SCORES]
    greedy = of([run["greedy"]["bleu"] for run in runs])
    steps, minutes = (mean(run[key] for run in runs) for key in ("steps", "seconds"))
    return [*scores, greedy, f"{steps:,.0f}", f"{minutes / 60:.1f}"]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=existing_file, required=True, help="of the base")
    parser.add_argument(
        "--tricks", type=existing_file, required=True, help="YAML file of names and the keys that they set"
    )
    parser.add_argument("--folder", type=Path, required=True, help="of the runs")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training for each run, validations included")
    parser.add_argument("--seeds", type=positive, default=1, metavar="N")
    parser.add_argument("--ranks", type=positive, default=2, help="of each training")
    parser.add_argument("--at_once", type=positive, default=1, metavar="N", help="trainings, on shares of the cores")
    parser.add_argument("--beam_size", type=positive, default=5)
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
