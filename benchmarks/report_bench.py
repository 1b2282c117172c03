"""How long does the report of a long run take, and how large is it?

    python benchmarks/report_bench.py --run RUN --steps 10000 --records 1000

RUN is a real run, which may be short: in a copy, lines of its metrics.jsonl are repeated until there is one for each
of so many steps, and its recorded vectors, if any, until there are so many records, both with 1 % of noise. Times are
those of `dist-s2s report`, from its start to its end. Exits with status 1 if a report is over the limit of 2 MB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.reports.writing import MOST_BYTES
from dist_s2s.storage.metrics import METRICS
from dist_s2s.storage.recorded_vectors import SIDES, RecordedVectors, vectors_file

_NOISE = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    with TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        copytree(options.run, run_dir)
        noise = np.random.default_rng(1)
        ranks = lengthen_metrics(run_dir / METRICS, options.steps, noise)
        words = [lengthen_vectors(vectors_file(run_dir, side), options.steps, options.records, noise) for side in SIDES]
        seconds, cpu_seconds = zip(*(measure(run_dir) for _ in range(options.repetitions)), strict=True)
        size = (run_dir / "report.html").stat().st_size
    figures = {"seconds": median(seconds), "cpu_seconds": median(cpu_seconds), "bytes": size, "all_seconds": seconds}
    print_table(
        f"The report of {options.steps:,} steps of {ranks} ranks, {options.records:,} records of {sum(words)} words",
        (),
        ("seconds", "CPU seconds", "bytes"),
        [[f"{figures['seconds']:.1f}", f"{figures['cpu_seconds']:.1f}", f"{size:,}"]],
    )
    settings = settings_of(options, "run") | {"ranks": ranks, "words": sum(words)}
    write_results(options.json, {"settings": settings, **figures})
    return int(size > MOST_BYTES)


def lengthen_metrics(path: Path, steps: int, noise: np.random.Generator) -> int:
    """Replace a file of metrics by one with a line for each step; return how many ranks it tells of."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    reports = [line for line in lines if "loss" in line]
    if not reports:
        raise SystemExit(f"{path} has no report of a step: train for longer than training.log_every steps")
    long = [_noisy(reports[step % len(reports)], noise) | {"step": step} for step in range(1, steps + 1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in long), encoding="utf-8")
    return len(reports[-1].get("ranks", {}).get("ids", ()))


def lengthen_vectors(path: Path, steps: int, count: int, noise: np.random.Generator) -> int:
    """Replace the records of a side by as many as asked for; return of how many words, 0 if there are none."""
    if not path.exists():
        return 0
    records = RecordedVectors.load(path)
    rows = records.rows[np.arange(count) * len(records.rows) // count]
    rows += noise.normal(scale=_NOISE, size=rows.shape).astype(np.float32)
    RecordedVectors(records.words, np.linspace(0, steps, count).astype(np.int64), rows).save(path)
    return len(records.words)


def measure(run_dir: Path) -> tuple[float, float]:
    """Return the seconds that the command takes, and its processor's."""
    before, began = _cpu_of_children(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "dist_s2s.report", "--run", str(run_dir)], check=True, stdout=sys.stderr)
    return time.perf_counter() - began, _cpu_of_children() - before


def _noisy(value: Any, noise: np.random.Generator) -> Any:
    """Return JSON with each float multiplied by about 1."""
    if isinstance(value, dict):
        return {name: _noisy(each, noise) for name, each in value.items()}
    if isinstance(value, list):
        return [_noisy(each, noise) for each in value]
    return value * noise.normal(1, _NOISE) if isinstance(value, float) else value


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a run whose training has ended")
    parser.add_argument("--steps", type=positive, default=10_000, metavar="N", help="steps with a line each")
    parser.add_argument("--records", type=positive, default=1000, metavar="N", help="records of words' vectors")
    parser.add_argument("--repetitions", type=positive, default=3, metavar="N")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if not (options.run / METRICS).is_file():
        parser.error(f"{options.run} has no {METRICS}: give a run")
    return options


if __name__ == "__main__":
    run_command(main)
