"""How soon does a translator reach a BLEU score on the validation data, beside JoeyNMT's LSTM?

    python benchmarks/quality_bench.py --config configs/multi30k-de-en.yaml --folder FOLDER --minutes 60

Both train on the same pairs, one after the other, with the same sizes, dropout and label smoothing, a joint BPE of as
many pieces, tied tables and greedy validation; minutes are those until a validation begins, earlier ones included.
JoeyNMT refuses DistributedDataParallel and half precision on a CPU, so it is one process of float32, with
--peer_threads threads; it feeds the attention back in (--no_input_feeding: it does not), which its documentation calls
its default, and lowers its learning rate where BLEU stands still. Its batches are of the size that trained the most
tokens in a second. Its environment is made in the user's cache directory, once.

What stands in FOLDER already is not trained again. Nothing else should run on the machine meanwhile.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from common import commands
from common.arguments import add_outputs, existing_file, make_parser, positive, settings_of
from common.figures import print_table, write_results
from common.peers import JOEYNMT, default_folder, environment_for_programs, python_of
from dist_s2s.cli.command_line import run_command
from dist_s2s.config import Config, load_config
from dist_s2s.text.corpus import load_pairs

Curve = list[dict[str, float]]  # minutes and bleu of each validation
_OURS, _THEIRS = "#0b5394", "#e69138"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    config = load_config(options.config, {"run_dir": str(options.folder / "ours")})
    job = joeynmt_job(config, options)
    options.folder.mkdir(parents=True, exist_ok=True)
    curves = {"ours": train_ours(config, options), "JoeyNMT": train_joeynmt(job, config, options)}
    rows = [
        [name, f"{_best(curve):.2f}", *(_cell(curve, score) for score in options.scores)]
        for name, curve in curves.items()
    ]
    rows.append(["ratio", "", *(_ratio(curves, score) for score in options.scores)])
    headings = ["best", *(f"until {score:g}" for score in options.scores)]
    print_table("BLEU of the validation data, and minutes until it is reached", ("",), headings, rows)
    settings = settings_of(options, "folder", "config", "peers_folder") | {"config": options.config.name}
    write_results(options.json, {"settings": settings, "curves": curves})
    if options.plot is not None:
        plot(curves, options.scores, options.plot)
    return 0


def train_ours(config: Config, options: argparse.Namespace) -> Curve:
    """Train by `dist-s2s train`, unless it has been; return the curve of its validations."""
    commands.train_once(config.run_dir, options.config, options.ranks, {"training.max_minutes": options.minutes})
    lines = commands.read_metrics(config.run_dir)
    return [{"minutes": line["minutes"], "bleu": line["valid_bleu"]} for line in lines if "valid_bleu" in line]


def train_joeynmt(job: Mapping[str, Any], config: Config, options: argparse.Namespace) -> Curve:
    """Train JoeyNMT, unless it has been; return the curve of its validations."""
    folder = Path(job["folder"])
    curve, file = folder / "curve.jsonl", folder / "job.json"
    if curve.exists():  # it is there once all is done
        commands.check_same(json.loads(file.read_text(encoding="utf-8")), job, folder)
    else:
        if folder.exists() and not file.exists():
            raise SystemExit(f"{folder} is there, but is no run of JoeyNMT: give another --folder")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        splits: tuple[tuple[Literal["train", "valid"], str], ...]
        splits = (("train", config.data.train), ("valid", config.data.valid))
        for name, of in splits:
            pairs = load_pairs(of, name, config.data.columns, config.data.skip_bad_lines)
            Path(job[name]).write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
        file.write_text(json.dumps(job), encoding="utf-8")
        command = [
            python_of(JOEYNMT, options.peers_folder),
            "-W",
            "ignore",
            "-m",
            "training.joeynmt_quality",
            str(file),
        ]
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment_for_programs())
    return [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]


def joeynmt_job(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Return what JoeyNMT is told; where it has another way, it is asked for ours in its own terms."""
    data, model, training = config.data, config.model, config.training
    if "phrasebook" in (data.train, data.valid) or data.target_vocabulary_size is None:
        raise SystemExit("quality_bench.py needs data.train, data.valid and data.target_vocabulary_size to be set")
    folder = (options.folder / "joeynmt").absolute()
    return {
        "train": str(folder / "train.tsv"), "valid": str(folder / "valid.tsv"), "folder": str(folder),
        "seed": training.seed, "minutes": options.peer_minutes,
        "threads": options.peer_threads or options.ranks, "validate_every": options.peer_validate_every,
        "vocabulary_size": data.target_vocabulary_size, "max_length": data.max_length, "dropout": model.dropout,
        "batch_tokens": options.peer_batch_tokens, "hidden_size": model.hidden_size,
        "embedding_dim": model.embedding_dim, "learning_rate": options.peer_learning_rate,
        "max_norm": training.max_norm, "label_smoothing": training.label_smoothing,
        "input_feeding": not options.no_input_feeding,
    }  # fmt: skip


def minutes_until(curve: Curve, score: float) -> float | None:
    """Return the minutes of the first validation with at least that score; None if there is none."""
    return next((point["minutes"] for point in curve if point["bleu"] >= score), None)


def plot(curves: Mapping[str, Curve], scores: Sequence[float], file: Path) -> None:
    """Draw both curves over the minutes, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), (_OURS, _THEIRS), strict=True):
        minutes, bleu = ([point[key] for point in curve] for key in ("minutes", "bleu"))
        axes.plot(minutes, bleu, "o-", markersize=3, color=colour, label=name)
    for score in scores:
        axes.axhline(score, color="#c9c9c9", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 40, 80, 160])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    minutes = [point["minutes"] for curve in curves.values() for point in curve]
    axes.set_xlim(0.9 * min(minutes), 1.1 * max(minutes))
    axes.set_xlabel("minutes of training, validations included")
    axes.set_ylabel("BLEU of the validation data, greedy")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(file, dpi=150)


def _best(curve: Curve) -> float:
    return max(point["bleu"] for point in curve)


def _cell(curve: Curve, score: float) -> str:
    minutes = minutes_until(curve, score)
    return f"not in {curve[-1]['minutes']:.0f}" if minutes is None else f"{minutes:.1f}"


def _ratio(curves: Mapping[str, Curve], score: float) -> str:
    """Return how many times sooner ours is; where the other has not come so far, that it is more than that."""
    ours, theirs = (minutes_until(curve, score) for curve in curves.values())
    if ours is None:
        return ""
    return f"> {curves['JoeyNMT'][-1]['minutes'] / ours:.1f}×" if theirs is None else f"{theirs / ours:.1f}×"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=existing_file, required=True, help="of ours; JoeyNMT's sizes come from it")
    parser.add_argument("--folder", type=Path, required=True, help="of both runs")
    parser.add_argument("--minutes", type=float, default=60.0, help="of our training")
    parser.add_argument("--peer_minutes", type=float, default=120.0, help="of JoeyNMT's")
    parser.add_argument("--ranks", type=positive, default=2)
    parser.add_argument("--peer_threads", type=positive, help="of JoeyNMT's one process (default: as many as --ranks)")
    parser.add_argument(
        "--peer_batch_tokens", type=positive, default=1500, help="JoeyNMT counts padding too, about half of them"
    )
    parser.add_argument("--peer_learning_rate", type=float, default=1e-3)
    parser.add_argument("--peer_validate_every", type=positive, default=250, help="steps")
    parser.add_argument("--no_input_feeding", action="store_true", help="JoeyNMT's decoder does not read its attention")
    parser.add_argument("--scores", type=float, nargs="+", default=[30.0, 35.0])
    parser.add_argument("--peers_folder", type=Path, default=default_folder())
    add_outputs(parser, plots=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
