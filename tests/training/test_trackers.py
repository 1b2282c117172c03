"""What the run log prints and writes, and that the first rank alone does so."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.training.events import Report, RunEnd, Validation
from dist_s2s.training.schedule import Progress
from dist_s2s.training.trackers import RunLog

VALUES = {"epoch": 2, "loss": 1.25, "tokens_per_second": 1234.5, "exchange_share": 0.25, "distinct_id_ratio": 0.5}


class Tracker:
    """Stands for accelerate, and takes down what it is told."""

    def __init__(self) -> None:
        self.logged: dict[int, dict[str, float]] = {}
        self.config: Mapping[str, Any] = {}
        self.trackers = [self]
        self.ended = False

    def init_trackers(self, name: str, config: Mapping[str, Any]) -> None:
        assert name == "dist_s2s"
        self.config = config

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged[step] = values

    def finish(self) -> None:
        self.ended = True


def make_log(run_dir: Path, is_first: bool = True) -> tuple[RunLog, Tracker]:
    tracker = Tracker()
    ranks = Ranks(0 if is_first else 1, world_size=2, device=torch.device("cpu"), group=None)
    return RunLog(run_dir, tracker, ranks, "valid.tsv"), tracker  # type: ignore[arg-type]


def test_a_tracker_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no login")

    log, _ = make_log(tmp_path)
    for method, use in (
        ("init_trackers", lambda: log.start_trackers({}, Progress())),
        ("log", lambda: log.metrics(1, {})),
    ):
        monkeypatch.setattr(Tracker, method, fail)
        with pytest.raises(UserError, match=r"a tracker has failed: RuntimeError: no login; mend it, or leave it out"):
            use()


def test_a_tracker_that_cannot_finish_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(Tracker, "finish", fail)
    monkeypatch.setattr(Tracker, "name", "mine", raising=False)
    for started in (False, True):
        log, _ = make_log(tmp_path)
        with log:
            if started:
                log.start_trackers({}, Progress())
        said = "warning: the tracker mine could not finish: RuntimeError: no network\n"
        assert capsys.readouterr().out == (said if started else "")  # one that has not started has nothing to finish


def test_metrics_go_to_the_file_and_to_the_tracker(tmp_path: Path) -> None:
    log, tracker = make_log(tmp_path)
    with log:
        log.start_trackers({}, Progress())
        log.metrics(3, {"loss": 1.5})
        log.metrics(4, {"loss": 1.25})
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 3, "loss": 1.5}, {"step": 4, "loss": 1.25}]
    assert tracker.logged == {3: {"loss": 1.5}, 4: {"loss": 1.25}}
    assert tracker.ended


def test_trackers_get_curves_of_few_ranks_and_the_range_of_many(tmp_path: Path) -> None:
    log, tracker = make_log(tmp_path)
    log.metrics(1, {"loss": 1.0}, {"ids": [float(rank) for rank in range(9)]})
    of_many = {"least_of_ranks/ids": 0.0, "mean_of_ranks/ids": 4.0, "most_of_ranks/ids": 8.0}
    assert tracker.logged[1] == {"loss": 1.0, **of_many}
    assert json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8"))["ranks"]["ids"] == list(range(9))


@pytest.mark.parametrize(
    ("method", "name"),
    [("dist_s2s.training.trackers.json.dumps", "metrics.jsonl"), (f"{__name__}.Tracker.log", "tensorboard")],
)
def test_a_full_disk_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log, _ = make_log(tmp_path)
    monkeypatch.setattr(method, full)
    with pytest.raises(UserError, match=rf"^No space left on device: {tmp_path / name}$"):
        log.metrics(1, VALUES)


def test_resumed_run_drops_what_it_writes_again(tmp_path: Path) -> None:
    log, _ = make_log(tmp_path)
    for step in (1, 2, 3):
        log.metrics(step, {"loss": 1.0})
    file = tmp_path / "metrics.jsonl"
    # Damaged on the disk, and killed while writing.
    file.write_bytes(b'{"step" 2}\n\xff}\n[1]\n' + file.read_bytes() + b'{"step": 4, "lo')
    log.start_trackers({}, Progress(step=2))
    log.metrics(3, {"loss": 2.0})
    assert [json.loads(line)["step"] for line in file.read_text(encoding="utf-8").splitlines()] == [1, 2, 3]


def test_a_validation_that_was_not_saved_is_written_again(tmp_path: Path) -> None:
    log, _ = make_log(tmp_path)
    for step in (2, 4):
        log.metrics(step, {"loss": 1.0})
        log.metrics(step, {"valid_loss": 1.0})
    log.start_trackers({}, Progress(step=4, validated_step=4))
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("valid_loss") == 2
    log.start_trackers({}, Progress(step=4, validated_step=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "valid_loss" in line] == [2]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]


def test_tracker_gets_a_flat_configuration(tmp_path: Path) -> None:
    log, tracker = make_log(tmp_path)
    log.start_trackers({"run_dir": "r", "training": {"seed": 1, "max_steps": None, "ok": True}}, Progress())
    assert tracker.config == {"run_dir": "r", "training.seed": 1, "training.max_steps": "None", "training.ok": True}


def test_only_the_first_rank_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, tracker = make_log(tmp_path, is_first=False)
    with log:
        log.say("hello")
        log.metrics(1, {"loss": 1.0})
        log.samples("samples", [("a", "b", "c")])
        log.write_summary({"bleu": 1.0})
        log.write_translations([("a", "b", "c")])
        log.parameters(nn.Linear(2, 2), {})
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert tracker.logged == {}


def test_text_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, _ = make_log(tmp_path)
    long = "[bold]" + "很 " * 200 + ":smile:"
    log.say(long)
    log.samples("two samples", [("[red]我", "I", "me"), ("你", "you", "")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        long,
        "two samples",
        "  source      [red]我",
        "  reference   I",
        "  translation me",
    ]


def test_without_a_terminal_progress_is_a_line_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = make_log(tmp_path)
    log.progress(VALUES, 0.5)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("dist_s2s.training.trackers.SECONDS_BETWEEN_LINES", -1)
    log(Report(20, VALUES, 0.5))
    line = "epoch 3 · 50% · loss 1.250 · 1,234 tokens/s · exchange 25% · distinct ids 50%\n"
    assert capsys.readouterr().out == line


def cells(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    return [row for row in rows if row]


def test_parameters_are_summed_up_by_part_and_listed_in_the_run_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, _ = make_log(tmp_path)
    core = nn.ModuleDict({"encoder": nn.Linear(3, 5), "output": nn.Linear(5, 1, bias=False)})
    tables = {"source_table": DistributedEmbedding(1001, 4)}
    log.parameters(core, tables)
    assert cells(capsys.readouterr().out) == [
        ["source_table", "1,001 x 4", "sharded by 2", "16,016", "16,016"],
        ["encoder", "2 tensors", "replicated", "80", "160"],
        ["output", "1 x 5", "replicated", "20", "40"],
        ["total", "", "", "16,116", "16,216"],
    ]
    every = [
        ["source_table.weight", "1,001 x 4", "sharded by 2", "16,016", "16,016"],
        ["encoder.weight", "5 x 3", "replicated", "60", "120"],
        ["encoder.bias", "5", "replicated", "20", "40"],
        ["output.weight", "1 x 5", "replicated", "20", "40"],
        ["total", "", "", "16,116", "16,216"],
    ]
    assert cells((tmp_path / "parameters.txt").read_text(encoding="utf-8")) == every
    log.parameters(core, tables, verbose=True)
    assert cells(capsys.readouterr().out) == every


def test_summary_and_translations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, _ = make_log(tmp_path)
    log.write_summary({"bleu": 12.5, "steps": 3})
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == {"bleu": 12.5, "steps": 3}
    assert capsys.readouterr().out.split() == ["bleu", "12.5", "steps", "3"]
    log.write_translations([("我", "I", "me"), ("你", "you", "")])
    assert (tmp_path / "translations.txt").read_text(encoding="utf-8") == "我\tI\tme\n你\tyou\t\n"


def test_what_it_hears_is_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, tracker = make_log(tmp_path)
    log(Report(20, VALUES, 0.5, {"ids": [7.0, 9.0]}))
    assert tracker.logged == {20: {**VALUES, "fraction": 0.5, "rank_0/ids": 7.0, "rank_1/ids": 9.0}}
    scores = {"bleu": 12.345, "chrf": 34.0, "signature": "tok:13a", "cut": 3, "warning": "all equal"}
    log(Validation(20, 2, 1.5, loss=0.75, rows=[("我", "I", "me")] * 4, **scores))
    log(RunEnd(20, "training.max_steps = 20 is reached", interrupted=False))
    log(RunEnd(20, "interrupted", interrupted=True))
    validated = {"epoch": 2, "valid_loss": 0.75, "valid_bleu": 12.345, "valid_chrf": 34.0, "valid_cut": 3}
    validated["minutes"] = 1.5
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, lines)) == [
        {"step": 20, **VALUES, "fraction": 0.5, "ranks": {"ids": [7.0, 9.0]}},
        {"step": 20, **validated},
    ]
    assert tracker.logged == {20: validated}
    shown = capsys.readouterr().out.splitlines()
    valid = "valid loss 0.7500 · valid BLEU 12.35 · chrF 34.00 on valid.tsv (tok:13a)"
    assert shown[0] == f"step 20 · epoch 3 · 1.5 min · {valid}"
    assert shown.count("  source      我") == 3
    assert shown[-4:] == [
        "  3 of 4 translations reached the longest length and were cut",
        "warning: all equal",
        "finished at step 20: training.max_steps = 20 is reached",
        "stopped at step 20, and saved; the same command goes on from here",
    ]
