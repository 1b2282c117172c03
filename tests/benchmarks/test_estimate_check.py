"""The check of the cost model on tiny tables: what it compares and writes, never how good the model is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import estimate_check
from dist_s2s.cost.calibrate import problems
from dist_s2s.cost.ranks import run_on_ranks
from tests.rank_pool import RankPool

CASES = [(replace(problem, num_embeddings=131, ids=40), name) for problem, name in estimate_check.CASES[:4]]


@pytest.fixture
def on_the_pool(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size)

    assert estimate_check.run_on_ranks is run_on_ranks
    monkeypatch.setattr(estimate_check, "run_on_ranks", run)
    monkeypatch.setattr(estimate_check, "CASES", CASES)


def test_it_checks_what_no_calibration_has_measured() -> None:
    assert len(estimate_check.CASES) >= 12
    calibrated = {(each.num_embeddings, each.embedding_dim, each.ids, each.skew) for each in problems()}
    checked = {
        (problem.num_embeddings, problem.embedding_dim, problem.ids, problem.skew)
        for problem, _ in estimate_check.CASES
    }
    assert not calibrated & checked
    assert not {each.num_embeddings for each in problems()} & {
        problem.num_embeddings for problem, _ in estimate_check.CASES
    }


@pytest.mark.usefixtures("on_the_pool")
def test_it_compares_medians_with_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "check.json"
    assert estimate_check.main(["--turns=2", "--limit=1e9", f"--json={file}"]) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert [run["ranks"] for run in report["runs"]] == [2, 4]
    for run in report["runs"]:
        assert [result["contender"] for result in run["results"]] == [name for _, name in CASES]
        for result in run["results"]:
            assert 0 < result["first_quartile"] <= result["median"] <= result["third_quartile"]
            assert result["error"] == pytest.approx(result["predicted"] / result["median"] - 1)
        errors = [abs(result["error"]) for result in run["results"]]
        assert run["largest_error"] == max(errors)
        assert run["mean_error"] == pytest.approx(sum(errors) / len(errors))
    assert f"error: {max(errors):.0%} at most" in capsys.readouterr().out


@pytest.mark.usefixtures("on_the_pool")
def test_it_fails_above_the_limit() -> None:
    assert estimate_check.main(["--turns=1", "--ranks", "2", "--limit=0.0001"]) == 1
