"""The check of the cost model on tiny tables: what it compares and writes, never how good the model is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import estimate_check
from dist_s2s.cost import calibrate
from tests.rank_pool import RankPool


@pytest.fixture
def on_the_pool(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size)

    monkeypatch.setattr(calibrate, "run_on_ranks", run)
    monkeypatch.setattr(estimate_check, "CASES", [(131, 8, 40, *case[3:]) for case in estimate_check.CASES[:4]])


def test_it_checks_what_no_calibration_has_measured() -> None:
    calibrated = {each.num_embeddings for each in calibrate.problems()}
    assert not calibrated & {case[0] for case in estimate_check.CASES}


@pytest.mark.usefixtures("on_the_pool")
def test_it_compares_medians_with_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "check.json"
    assert estimate_check.main(["--steps=2", "--limit=1e9", f"--json={file}"]) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [result["ranks"] for result in report["results"]] == [2] * 4 + [4] * 4
    factors = []
    for result in report["results"]:
        ratio = result["predicted"] / result["measured"]
        factors.append(max(ratio, 1 / ratio))
        assert result["factor"] == pytest.approx(factors[-1])
    assert report["largest_factor"] == pytest.approx(max(factors))
    assert 1 <= report["mean_factor"] <= report["largest_factor"]
    assert f"{max(factors):.2f} at most" in capsys.readouterr().out


@pytest.mark.usefixtures("on_the_pool")
def test_it_fails_above_the_limit() -> None:
    assert estimate_check.main(["--steps=1", "--ranks", "2", "--limit=1.0001"]) == 1
