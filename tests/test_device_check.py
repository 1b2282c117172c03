"""The check for a machine with a GPU: its parts, its report whatever happens, and, nightly, all of it on the CPU."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import device_check
import device_wheels
from device_check import check
from device_parts import ROOT, Part, parts, read_tests, read_training
from device_wheels import NEEDED, install

EIGHT_MINUTES = 480
NAMES = [
    "machine",
    "tests",
    "training",
    "training_sharded_output",
    "translation",
    "lookup",
    "lookup_torchrec",
    "output_layers",
]


def python(name: str, program: str, read: Callable[[], Any] = dict, limit: float = 60, **settings: Any) -> Part:
    return Part(name, ("-c", program), limit, read, **settings)


MACHINE = python("machine", "print('a machine')", lambda: {"torchrec": {"version": "1"}})


def report_of(all_parts: Sequence[Part], work: Path) -> tuple[dict[str, Any], int]:
    options = argparse.Namespace(device="cpu", json=work / "new" / "report.json", wheels=work)
    status = check(all_parts, options, work)
    return json.loads(options.json.read_text(encoding="utf-8")), status


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_parts_are_complete_and_start_what_is_there(tmp_path: Path, device: str) -> None:
    all_parts = parts(device, tmp_path)
    assert [part.name for part in all_parts] == NAMES
    for part in all_parts:
        started = part.arguments[0]
        if started == "-m":
            started = (
                part.arguments[2] if part.arguments[1] == "pytest" else part.arguments[1].replace(".", "/") + ".py"
            )
        assert (ROOT / started).exists()


def test_all_parts_together_end_within_eight_minutes_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(part.limit for part in parts("cuda", tmp_path)) < device_check.SECONDS < EIGHT_MINUTES
    monkeypatch.setattr(device_check, "SECONDS", 2)  # three times that on a CPU
    began = time.monotonic()
    sleeping = [python(name, "import time; time.sleep(600)") for name in ("long", "too_late")]
    report, status = report_of([MACHINE, *sleeping], tmp_path)
    assert status == 1
    assert time.monotonic() - began < 60
    assert report["parts"]["long"]["status"] == report["parts"]["too_late"]["status"] == "failed"
    assert "used up" in report["parts"]["too_late"]["reason"]


def test_the_report_is_complete_when_a_part_fails(tmp_path: Path) -> None:
    file, seen = tmp_path / "new" / "report.json", []

    def written_so_far() -> dict[str, int]:
        seen.append(json.loads(file.read_text(encoding="utf-8"))["parts"])
        return {"answer": 42}

    def unreadable() -> None:
        raise ValueError("the loss has not fallen")

    report, status = report_of(
        [
            MACHINE,
            python("fails", "import sys; print('the cause'); sys.exit(3)", written_so_far),
            python("is_wrong", "print('looks well')", unreadable),
            python("is_left_out", "", skip=lambda machine: f"TorchRec is {machine['torchrec']['version']}"),
            python("is_fine", "", written_so_far),
        ],
        tmp_path,
    )
    assert status == 1
    assert report["machine"] == {"torchrec": {"version": "1"}}
    found = report["parts"]
    assert [result["status"] for result in found.values()] == ["ok", "ok", "failed", "failed", "skipped", "ok"]
    assert (found["fails"]["reason"], found["fails"]["output"]) == ("exit status 3", "the cause\n")
    assert found["fails"]["figures"] == found["is_fine"]["figures"] == {"answer": 42}
    assert found["is_wrong"]["reason"].endswith("the loss has not fallen")
    assert found["is_wrong"]["output"] == "looks well\n"
    assert found["is_left_out"]["reason"] == "TorchRec is 1"
    assert "output" not in found["is_fine"]
    first, last = seen
    assert [result["status"] for result in first.values()] == ["ok", "ok", "not run", "not run", "not run", "not run"]
    assert [result["status"] for result in last.values()] == ["ok", "ok", "failed", "failed", "skipped", "not run"]


def test_no_part_runs_on_an_unknown_machine(tmp_path: Path) -> None:
    report, status = report_of([python("machine", "raise SystemExit('no GPU')"), python("other", "")], tmp_path)
    assert status == 1
    assert report["parts"]["machine"]["output"] == "no GPU\n"
    assert report["parts"]["other"] == {"status": "skipped", "reason": "machine failed"}


def test_a_part_that_hangs_is_killed_with_all_its_processes(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({str(pid)!r}).write_text(str(child.pid))
def hanging_here(): time.sleep(600)
hanging_here()
"""
    began = time.monotonic()
    report, status = report_of([MACHINE, python("hangs", program, limit=5), python("next", "")], tmp_path)
    assert status == 1
    assert time.monotonic() - began < 60
    assert report["parts"]["hangs"]["reason"] == "killed after 5 s"
    assert "in hanging_here" in report["parts"]["hangs"]["output"]
    assert report["parts"]["next"]["status"] == "ok"
    assert not is_running(int(pid.read_text()))


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody has waited for yet has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_figures_of_the_tests_name_those_that_failed(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text("def test_well(): pass\ndef test_ill(): assert False\n")
    file = tmp_path / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={file}", "test_two.py"]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    figures = read_tests(file)
    assert figures["tests"] == 2
    assert figures["failures"] == 1
    assert [name.rpartition("::")[2] for name in figures["failed"]] == ["test_ill"]


def test_training_that_learns_nothing_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"bleu": 1.5}')
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 10, "loss": 5.0}\n{"step": 20, "valid_loss": 9}\n{"step": 30, "loss": 4.5}\n')
    assert read_training(tmp_path) == {"bleu": 1.5, "first_loss": 5.0, "last_loss": 4.5}
    metrics.write_text('{"step": 10, "loss": 5.0}\n{"step": 20, "loss": NaN}\n')
    with pytest.raises(ValueError, match="has not fallen"):
        read_training(tmp_path)


def test_what_is_missing_is_installed_from_wheels_into_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    assert install(tmp_path, site) == []  # here nothing is missing
    assert not site.exists()
    about = "Metadata-Version: 2.1\nName: carried\nVersion: 0.1\n"
    with ZipFile(tmp_path / "carried-0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "")
        wheel.writestr("carried-0.1.dist-info/METADATA", about)
        wheel.writestr("carried-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-0.1.dist-info/RECORD", "")
    monkeypatch.setattr(device_wheels, "NEEDED", {"carried": ("carried",), "json": ("json",)})
    assert install(tmp_path, site) == ["carried"]
    assert (site / "carried.py").is_file()


def test_a_missing_wheel_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_wheels, "NEEDED", {"not_there_at_all": ("not-there-at-all",)})
    report, status = report_of([MACHINE], tmp_path)
    assert status == 1
    assert report["parts"]["packages"]["status"] == "failed"
    assert "not-there-at-all" in report["parts"]["packages"]["output"]


def test_every_wheel_has_a_pinned_version() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for names in NEEDED.values():
        for name in names:
            assert sum(line.startswith(f"{name}==") for line in pinned) == 1, name


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_the_whole_check_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = ["bash", "launch/device_check.sh", "--device", "cpu", "--json", str(file)]
    finished = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable})
    report = json.loads(file.read_text(encoding="utf-8"))
    problems = {name: result for name, result in report["parts"].items() if result["status"] != "ok"}
    assert set(problems) <= {"lookup_torchrec"}
    assert finished.returncode == 0
    assert report["machine"]["torch"]
    assert report["parts"]["tests"]["figures"]["tests"] > 50
    assert set(report["parts"]["output_layers"]["figures"]["contenders"]) >= {"sharded", "replicated", "sampled"}
