"""`dist-s2s watch`: finished, growing and unknown runs, and what it says of ranks."""

import json
import math
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dist_s2s import UserError
from dist_s2s.reports import watching
from dist_s2s.reports.history import RunHistory, findings
from dist_s2s.reports.plot import draw
from dist_s2s.reports.screen import screen
from dist_s2s.storage.lock import LOCK
from tests.commands import run

EVEN = {
    "step_seconds": 1.0,
    "data_seconds": 0.01,
    "core_seconds": 0.6,
    "softmax_seconds": 0.2,
    "waited_seconds": 0.1,
    "bytes_sent": 2.0**20,
    "ids": 400.0,
    "distinct_ids": 100.0,
    "rows_served": 100.0,
    "memory_bytes": 2.0**30,
}


def figures(ranks: int, **changed: list[float]) -> dict[str, list[float]]:
    return {name: [value] * ranks for name, value in EVEN.items()} | changed


def report(step: int, **more: Any) -> dict[str, Any]:
    values = {"epoch": 0, "loss": 5.0 - step / 100, "tokens_per_second": 1234.5, "fraction": step / 100}
    return {"step": step, **values, "ranks": figures(2), **more}


def append(run_dir: Path, *lines: dict[str, Any]) -> None:
    with open(run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def hold(run_dir: Path, pid: int, host: str = socket.gethostname()) -> None:
    """What a training leaves that has begun now."""
    since = datetime.now(UTC).isoformat(" ", "seconds")  # in whatever zone
    (run_dir / LOCK).write_text(json.dumps({"pid": pid, "host": host, "since": since}), encoding="utf-8")


def history_of(run_dir: Path, *lines: dict[str, Any]) -> RunHistory:
    append(run_dir, *lines)
    history = RunHistory(run_dir)
    history.read()
    return history


def shown(history: RunHistory, width: int, height: int = 50) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(screen("runs/a", "running", history, width, height))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_finished_run_is_shown_once(saved_run: Path) -> None:
    output = run("dist_s2s.watch", "--run", saved_run, environment={"COLUMNS": "100"}).output
    assert output.startswith(f"{saved_run} · finished\nstep 2 · ")
    assert "valid loss" in output
    assert "milliseconds of a step" in output
    assert max(map(len, output.splitlines()[1:])) <= 100


def test_odd_figures_are_left_out(tmp_path: Path) -> None:
    odd = [math.nan, math.inf, 10**400]
    lines = [{"step": 1, "loss": value, "ranks": {name: [value] for name in EVEN}} for value in odd]
    no_time = {"step": 2, "loss": 1.0, "ranks": {name: [0.0] for name in EVEN}}
    history = history_of(tmp_path, *lines, no_time)
    assert history.curves["loss"] == [(2, 1.0)]
    assert history.ranks() == {}
    assert "step 2" in shown(history, 80)


def test_a_copy_of_a_finished_run_is_finished(tmp_path: Path) -> None:
    hold(tmp_path, 1 << 30)
    (tmp_path / "summary.json").touch()
    append(tmp_path, {"step": 2, "loss": 1.0})
    later = time.time() + 10
    os.utime(tmp_path / "summary.json", (later, later))
    os.utime(tmp_path / "metrics.jsonl", (later + 5, later + 5))
    assert watching.state_of(tmp_path) == "finished"


def test_an_unknown_run_is_one_line(tmp_path: Path) -> None:
    error = run("dist_s2s.watch", "--run", tmp_path, status=2).errors[0]
    assert error == f"error: {tmp_path} is not a run directory (it has no run.json); give the --run_dir of a training\n"


def watched(run_dir: Path, monkeypatch: pytest.MonkeyPatch, *looks: Callable[[], object]) -> str:
    """What a terminal gets if between one look and the next these happen."""
    waiting = list(looks)
    monkeypatch.setattr(watching.time, "sleep", lambda _: waiting.pop(0)())
    file = StringIO()
    watching.watch(run_dir, Console(file=file, force_terminal=True, width=100, height=40))
    assert not waiting
    return file.getvalue()


def test_a_growing_run_is_followed_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").touch()
    hold(tmp_path, os.getpid())

    def half_a_line() -> None:
        with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write('{"step": 77, "loss"')

    def the_rest() -> None:
        with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(": 1.5}\n")
        (tmp_path / "summary.json").touch()
        later = time.time() + 1
        os.utime(tmp_path / "summary.json", (later, later))

    output = watched(tmp_path, monkeypatch, lambda: append(tmp_path, report(20)), half_a_line, the_rest)
    looks = [output.index(text) for text in ("no figures yet", "step 20", "step 77")]
    assert looks == sorted(looks)
    assert output.index("· finished") > output.rindex("· running")
    assert "cannot be read" not in output


@pytest.mark.parametrize("is_gone", [True, False], ids=["killed", "its number is another process's"])
def test_a_run_whose_process_is_gone_has_stopped(tmp_path: Path, is_gone: bool) -> None:
    append(tmp_path, report(20))
    hold(tmp_path, 2**30 if is_gone else os.getpid())
    if not is_gone:
        path = tmp_path / LOCK
        path.write_text(
            path.read_text(encoding="utf-8").replace(f"{time.gmtime().tm_year}-", "2001-"), encoding="utf-8"
        )
    assert watching.state_of(tmp_path) == "stopped"


def test_a_run_on_another_host_is_taken_to_run(tmp_path: Path) -> None:
    append(tmp_path, report(20))
    assert watching.state_of(tmp_path) == "stopped"  # nobody has the lock
    hold(tmp_path, 1, host="elsewhere")
    assert watching.state_of(tmp_path).startswith("running on elsewhere")


def test_interrupting_it_leaves_the_terminal_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, report(20))
    hold(tmp_path, os.getpid())

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # run_command makes 130 of it
        watched(tmp_path, monkeypatch, interrupt)


def test_unknown_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        watching.watch(tmp_path / "none", Console())


@pytest.mark.parametrize("width", [80, 110, 160])
def test_the_screen_has_everything_at_any_width(tmp_path: Path, width: int) -> None:
    validated = {"step": 40, "valid_loss": 4.25, "valid_bleu": 12.5, "valid_chrf": 30.0}
    history = history_of(tmp_path, *(report(step) for step in range(10, 60, 10)), validated)
    output = shown(history, width)
    for text in ("runs/a · running", "step 40", "50% of the run", "valid loss 4.250", "BLEU 12.50", "rows served"):
        assert text in output
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= width


def test_of_many_ranks_the_slow_and_the_hot_are_shown(tmp_path: Path) -> None:
    waits, served = [0.2] * 64, [100.0] * 64
    waits[40], served[50] = 0.0, 400.0
    history = history_of(tmp_path, report(20, ranks=figures(64, waited_seconds=waits, rows_served=served)))
    output = shown(history, 100)
    assert "8 of 64 ranks" in output
    numbers = [line.split()[0] for line in output.splitlines() if line.split()[1:2] == ["1,000.0"]]
    assert len(numbers) == 8
    assert {"40", "50"} <= set(numbers)


def test_what_is_found() -> None:
    assert findings(figures(2)) == ["core takes most of a step: 60%"]
    uneven = figures(2, waited_seconds=[0.3, 0.02], rows_served=[30.0, 90.0], data_seconds=[0.2, 0.2])
    assert findings(uneven)[1:] == [
        "batches come late: ranks wait for them for 20% of a step",
        "rank 1 is slow: the others wait for 30% of a step, and it for 2%",
        "owner 1 is hot: it serves 75% of the rows, 1.50 times an even share; see embedding.layout",
    ]
    assert findings(figures(1)) == ["core takes most of a step: 60%"]


def test_figures_are_means_of_the_latest_reports_of_the_same_ranks(tmp_path: Path) -> None:
    before = report(10, ranks=figures(3))
    lines = (report(step, ranks=figures(2, ids=[step, 0.0])) for step in (20, 30))
    odd = report(40, ranks={"ids": "none"}), {"step": 45, "ranks": 7}, report(50, ranks=None, loss=float("nan"))
    history = history_of(tmp_path, before, *lines, *odd)
    assert history.ranks()["ids"] == [25.0, 0.0]
    assert [step for step, _ in history.curves["loss"]] == [10, 20, 30, 40]


def test_a_plot_rises_where_its_curve_does() -> None:
    lines = ["".join(text for text, _ in pieces) for pieces in draw({"red": [(0, 0.0), (100, 2.0)]}, 30, 4)]
    assert lines[0].startswith("        2 ┤")
    assert lines[3].startswith("        0 ┤")
    marks = [line.split("┤")[1].rstrip() for line in lines[:4]]
    assert [len(mark) for mark in marks] == sorted((len(mark) for mark in marks), reverse=True)
    assert lines[4].split() == ["0", "100"]
    assert all(len(line) == 30 for line in lines)


@pytest.mark.parametrize("points", [[(7, 1.5)], [(7, 1.5), (9, 1.5)]], ids=["one point", "a flat curve"])
def test_a_plot_of_little(points: list[tuple[int, float]]) -> None:
    lines = draw({"red": points}, 24, 2)
    assert len(lines) == 3
    assert any(style == "red" and text.strip() for line in lines for text, style in line)
