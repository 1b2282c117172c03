"""Calibrations: solved from what is measured, written and read again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dist_s2s import UserError, estimate
from dist_s2s.cost import calibrate as calibration_of
from dist_s2s.cost.calibrate import calibrate, problems, solve
from dist_s2s.cost.calibration import Calibration, read_calibration
from dist_s2s.cost.ranks import run_on_ranks
from dist_s2s.cost.seconds import COEFFICIENTS, amounts, step_seconds
from dist_s2s.distributed.start import available_cores
from tests.cost.machines import KNOWN
from tests.rank_pool import RankPool


def test_the_machine_that_was_measured_is_found() -> None:
    seconds = [sum(step_seconds(problem, KNOWN.coefficients).values()) for problem in problems()]
    assert solve([amounts(problem) for problem in problems()], seconds) == pytest.approx(KNOWN.coefficients)


def test_no_coefficient_is_negative() -> None:
    rows = [{"step": 1.0, "id": float(n), "row_byte": float(n * n)} for n in range(1, 6)]
    assert solve(rows, [2.0 + 3.0 * n for n in range(1, 6)]) == pytest.approx(
        dict.fromkeys(COEFFICIENTS, 0.0) | {"step": 2.0, "id": 3.0}, abs=1e-9
    )
    found = solve(rows, [2.0 + 3.0 * n - 0.1 * n * n for n in range(1, 6)])
    assert found["row_byte"] == 0
    assert min(found.values()) >= 0


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b"[]",
        b'{"coefficients": {"hop": 1}}',
        json.dumps({**KNOWN.to_json(), "coefficients": {}}).encode(),
        json.dumps({**KNOWN.to_json(), "cores": "two"}).encode(),
    ],
)
def test_a_broken_calibration_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"machine\.json is not a calibration of this version .*; make one with"):
        read_calibration(file)


def test_the_package_has_a_calibration() -> None:
    calibration = read_calibration(None)
    assert calibration.coefficients.keys() == set(COEFFICIENTS)
    assert calibration.coefficients["collective peer"] > 0
    assert calibration.cores >= 1


def test_a_calibration_survives_being_written() -> None:
    assert Calibration(**json.loads(json.dumps(KNOWN.to_json()))) == KNOWN


def test_calibrating_works_end_to_end_in_small(
    ranks: RankPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_the_pool(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size, timeout=100.0)

    assert calibration_of.run_on_ranks is run_on_ranks
    monkeypatch.setattr(calibration_of, "run_on_ranks", on_the_pool)
    monkeypatch.setattr(estimate, "calibrate", lambda asked: calibrate(asked, steps=2))
    monkeypatch.setattr(estimate, "problems", lambda: [replace(each, num_embeddings=500) for each in problems()[::3]])
    file = tmp_path / "machine.json"
    assert estimate.main([f"--calibrate={file}"]) == 0
    calibration = read_calibration(file)
    assert calibration.torch == torch.__version__
    assert calibration.process_bytes > 2**20
    assert calibration.cores == available_cores()
    assert 0 < max(calibration.coefficients.values()) < 1
    assert str(tmp_path) not in file.read_text(encoding="utf-8")
    question = ["--num_embeddings=1000", "--embedding_dim=8", "--ranks=2"]
    assert estimate.main([*question, f"--calibration={file}"]) == 0
    assert "Best: " in capsys.readouterr().out


def rank_of(group: torch.distributed.ProcessGroup, shift: int) -> int:
    return group.rank() + shift


@pytest.mark.usefixtures("forked_ranks")
def test_ranks_of_a_calibration_are_processes_of_their_own() -> None:
    assert run_on_ranks(rank_of, 2, 5) == [5, 6]
