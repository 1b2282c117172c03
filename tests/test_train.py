"""Training from start to end: what a run leaves behind, and that stopping and starting again loses nothing."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dist_s2s.config import load_config
from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from tests.commands import Command, Finished, run
from tests.toy_corpus import PAIRS, options

STEPS = 100


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics(run_dir) if "loss" in line}


def weights(run_dir: Path) -> dict[str, str]:
    """SHA-256 of each tensor file of the newest checkpoint: model and optimizers, bit for bit."""
    sums: dict[str, str] = read_manifest(list_checkpoints(run_dir / "checkpoints")[-1])["sha256"]
    return sums


@pytest.fixture(scope="module")
def two_ranks(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    run_dir = tmp_path_factory.mktemp("two") / "run"
    arguments = options(corpus, run_dir, training__validate_every=10, training__checkpoint_every=5)
    return run_dir, run("dist_s2s.train", *arguments, ranks=2)


def test_run_directory_is_complete(two_ranks: tuple[Path, Finished], corpus: Path) -> None:
    run_dir, _ = two_ranks
    config = load_config(run_dir / "config.yaml", {})
    assert (config.data.train, config.training.max_steps, config.run_dir) == (str(corpus), 20, run_dir)
    assert list((run_dir / "tensorboard").rglob("events.out.tfevents.*"))
    rows = [line.split("\t") for line in (run_dir / "translations.txt").read_text(encoding="utf-8").splitlines()]
    assert [(source, reference) for source, reference, _ in rows] == PAIRS
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} >= {"step-20", "step-15"}


def test_metrics_have_a_line_for_each_logged_step(two_ranks: tuple[Path, Finished]) -> None:
    lines = metrics(two_ranks[0])
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(1, 21))
    for line in training:
        assert line.keys() >= {"epoch", "learning_rate", "tokens_per_second", "exchange_seconds"}
        assert 0 < line["distinct_id_ratio"] <= 1
        assert line["exchange_seconds"] > 0
        assert line["tokens_per_second"] > 0
    assert training[-1]["epoch"] > 0
    assert training[-1]["loss"] < training[0]["loss"]
    rates = [line["learning_rate"] for line in training]
    assert max(rates) == max(rates[:6])
    assert rates[:5] == sorted(rates[:5])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    validated = [line["step"] for line in lines if "valid_loss" in line]
    assert validated == [10, 20]


def test_summary(two_ranks: tuple[Path, Finished]) -> None:
    run_dir, finished = two_ranks
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert summary.keys() >= {"bleu", "chrf", "valid_loss", "tokens_per_second", "seconds", "signature"}
    assert (summary["steps"], summary["world_size"]) == (20, 2)
    assert "version:" in summary["signature"]
    assert summary["valid_loss"] < 3
    assert f"bleu {summary['bleu']}" in " ".join(finished.output.split())


def test_first_rank_alone_speaks(two_ranks: tuple[Path, Finished]) -> None:
    _, finished = two_ranks
    assert finished.outputs[1] == ""
    assert "source_table" in finished.output
    assert "sharded by 2" in finished.output
    assert PAIRS[0][0] in finished.output


def validations(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["valid_loss"] for line in metrics(run_dir) if "valid_loss" in line}


@pytest.fixture(scope="module")
def long_options(corpus: Path) -> Callable[[Path], list[str]]:
    """Of a run that is long enough to be stopped in the middle, with dropout; every stop is at a validation."""
    settings = {"training__max_steps": STEPS, "training__validate_every": 5, "training__ema_decay": 0.9}
    ngrams = {"embedding__ngrams": "2,3", "embedding__ngram_rows": 500, "embedding__ngram_dropout": 0.2}
    return lambda run_dir: options(corpus, run_dir, model__dropout=0.3, **settings, **ngrams)


@pytest.fixture(scope="module")
def uninterrupted(long_options: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("long") / "run"
    run("dist_s2s.train", *long_options(run_dir))
    return run_dir


def test_stopped_and_restarted_run_equals_an_uninterrupted_one(
    uninterrupted: Path, long_options: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    """Stopped twice, by each of the signals."""
    run_dir = tmp_path / "run"
    file = run_dir / "metrics.jsonl"
    step, started = 0, ""
    for stop in (signal.SIGTERM, signal.SIGINT):
        command = Command("dist_s2s.train", *long_options(run_dir))
        more = step + 3
        command.wait_until(lambda more=more: file.exists() and max(losses(run_dir), default=0) >= more)
        command.signal(stop)
        output = command.wait(128 + stop).output
        assert started in output
        stopped = re.search(r"stopped at step (\d+), and saved", output)
        assert stopped is not None
        assert more <= int(stopped[1]) < STEPS
        step = int(stopped[1])
        checkpoint = list_checkpoints(run_dir / "checkpoints")[-1]
        assert checkpoint.name == f"step-{step}"
        started = f"going on from {checkpoint}"
    assert started in run("dist_s2s.train", *long_options(run_dir)).output
    assert losses(run_dir) == losses(uninterrupted)
    assert list(losses(run_dir)) == list(range(1, STEPS + 1))
    assert weights(run_dir) == weights(uninterrupted)
    assert validations(run_dir) == validations(uninterrupted)


def test_starting_a_finished_run_again_changes_nothing(
    two_ranks: tuple[Path, Finished], corpus: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(two_ranks[0], run_dir)
    arguments = options(corpus, run_dir, training__validate_every=10, training__checkpoint_every=5)
    run("dist_s2s.train", *arguments, ranks=2)
    assert metrics(run_dir) == metrics(two_ranks[0])
    assert weights(run_dir) == weights(two_ranks[0])
    old, new = (json.loads((folder / "summary.json").read_text()) for folder in (two_ranks[0], run_dir))
    assert new == old


def test_run_goes_on_with_another_number_of_ranks(corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    exact = {"training__precision": "fp64", "model__dropout": 0, "training__checkpoint_every": 10}
    exact["training__ema_decay"] = 0.9
    run("dist_s2s.train", *options(corpus, one, **exact))
    shutil.copytree(one, two)
    shutil.rmtree(two / "checkpoints" / "step-20")
    run("dist_s2s.train", *options(corpus, two, **exact), ranks=2)
    assert read_manifest(two / "checkpoints/step-20")["tables"]["source_table"]["world_size"] == 2
    assert losses(two) == pytest.approx(losses(one), rel=1e-9)
    assert len(losses(two)) == 20
    assert validations(two) == pytest.approx(validations(one), rel=1e-9)  # of the averages
    assert len(validations(two)) == 1


@pytest.fixture(scope="module")
def stopped_early(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that cannot learn, and its arguments."""
    run_dir = tmp_path_factory.mktemp("early") / "run"
    hopeless = {"training__learning_rate": 1e-30, "training__validate_every": 2, "training__patience": 2}
    arguments = options(corpus, run_dir, training__max_steps=1000, **hopeless)
    assert "stopping early" in run("dist_s2s.train", *arguments, ranks=2).output
    return run_dir, arguments


def test_early_stop(stopped_early: tuple[Path, list[str]]) -> None:
    run_dir, _ = stopped_early
    assert [line["step"] for line in metrics(run_dir) if "valid_bleu" in line] == [2, 4, 6]
    assert json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["steps"] == 6


def test_early_stop_is_remembered(stopped_early: tuple[Path, list[str]]) -> None:
    run_dir, arguments = stopped_early
    run("dist_s2s.train", *arguments)
    assert max(losses(run_dir)) == 6


def test_newest_checkpoints_and_the_best_are_kept(corpus: Path, tmp_path: Path) -> None:
    hopeless = {"training__learning_rate": 1e-30, "training__max_steps": 7, "training__keep_checkpoints": 2}
    arguments = options(corpus, tmp_path / "run", training__validate_every=3, training__checkpoint_every=1, **hopeless)
    run("dist_s2s.train", *arguments)
    names = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert names == ["step-3", "step-6", "step-7"]


def test_too_long_pairs_are_counted(corpus: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.tsv"
    long = "".join(f"{'长' * 30}\tlong\nlong\t{'long ' * 30}\n" for _ in range(2))
    train.write_text(corpus.read_text(encoding="utf-8") + long, encoding="utf-8")
    limits = {"data__train": train, "data__max_length": 20, "training__max_steps": 1}
    output = run("dist_s2s.train", *options(corpus, tmp_path / "run", **limits)).output
    assert f"{len(PAIRS)} training pairs" in output
    assert "\n4 dropped, as longer than data.max_length = 20 tokens\n" in output


def test_resume_never_moves_the_old_run_aside(corpus: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=2))
    run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=3, training__seed=7, training__resume="never"))
    assert len(losses(tmp_path / "run.1")) == 2
    assert len(losses(run_dir)) == 3
    assert load_config(run_dir / "config.yaml", {}).training.seed == 7
