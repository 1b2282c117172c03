"""The softmax benchmark on a small layer: what it computes and writes, never how long it takes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import softmax_bench
from softmax_bench import TOLERANCE, Contender, Problem, compare, draw_batch, layers
from tests.rank_pool import RankPool

PROBLEM = Problem(tokens=64, num_classes=131, hidden_size=8)
SMALL = ["--ranks=2", "--tokens=64", "--num_classes=131", "--hidden_size=8", "--repetitions=2"]


def compare_with_other_smoothing(group: Any) -> dict[str, float]:
    """What compare finds if the second contender has another loss."""

    class Wrong(Contender):
        def __init__(self, kind: Any, problem: Problem, group: Any) -> None:
            super().__init__(kind, problem, group)
            self.smoothing = 0.2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax_bench, "Contender", Wrong)
        return compare(group, PROBLEM)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_layers_compute_the_same(ranks: RankPool, world_size: int, smoothing: float) -> None:
    problem = replace(PROBLEM, label_smoothing=smoothing)
    for differences in ranks.run(compare, problem, layers(), world_size=world_size):
        assert set(differences) == {"loss", "hidden gradient", "weight gradient", "bias gradient"}
        assert max(differences.values()) <= TOLERANCE


def test_comparison_finds_a_different_loss(ranks: RankPool) -> None:
    for differences in ranks.run(compare_with_other_smoothing, world_size=2):
        assert min(differences.values()) > 10 * TOLERANCE


def test_ranks_share_the_tokens() -> None:
    sizes = [len(draw_batch(Problem(10, 131, 8), rank, 3)[1]) for rank in range(3)]
    assert sizes == [4, 3, 3]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status, which Linux has")
@pytest.mark.parametrize(("limit", "status"), [("0.1", 1), ("1e9", 0)])
def test_softmax_bench_writes_its_figures(
    ranks: RankPool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    limit: str,
    status: int,
) -> None:
    run_on_the_pool(ranks, monkeypatch)
    file = tmp_path / "figures.json"
    assert softmax_bench.main([*SMALL, f"--limit={limit}", f"--json={file}"]) == status
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["logits_bytes"] == 64 * 131 * 4
    assert report["settings"]["hidden_size"] == 8
    assert report["peak_to_logits"] == 2 * 2**20 / report["logits_bytes"]
    for figures in report["contenders"].values():
        assert all(seconds > 0 for seconds in figures["seconds"])
        assert len(figures["seconds"]) == 2
        assert figures["above_idle"] == [2 * 2**20] * 2
    output = capsys.readouterr().out
    assert all(softmax_bench.TITLES[kind] in output for kind in softmax_bench.USUAL)
    assert ("FAILED" if status else "passed") in output


def test_softmax_bench_measures_every_layer_on_request(
    ranks: RankPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_on_the_pool(ranks, monkeypatch)
    file = tmp_path / "figures.json"
    arguments = [*SMALL, "--ranks=1", "--all_layers", "--label_smoothing=0", "--limit=1e9", f"--json={file}"]
    assert softmax_bench.main(arguments) == 0
    assert tuple(json.loads(file.read_text(encoding="utf-8"))["contenders"]) == layers()
    assert {"sharded", "replicated", "chunked", "sampled"} <= set(layers())


@pytest.mark.parametrize(("is_available", "reason"), [(False, "torch finds none"), (True, "for one rank")])
def test_softmax_bench_refuses_a_device_that_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_available: bool, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    with pytest.raises(SystemExit, match="2"):
        softmax_bench.main([*SMALL, "--device=cuda"])
    assert reason in capsys.readouterr().err


def test_softmax_bench_gives_no_figures_when_losses_disagree(
    ranks: RankPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_on_the_pool(ranks, monkeypatch)
    monkeypatch.setattr(softmax_bench, "TOLERANCE", -1.0)
    assert softmax_bench.main([*SMALL, f"--json={tmp_path / 'figures.json'}"]) == 1
    assert not (tmp_path / "figures.json").exists()
    assert "loss by" in capsys.readouterr().err


def run_on_the_pool(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes seconds, and the pool's have a peak from other tests: let it be 2 MiB above idle."""

    def on_the_pool(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        answers = ranks.run(function, *args, world_size=world_size)
        return [{**answer, "above_idle": 2 * 2**20} if "above_idle" in answer else answer for answer in answers]

    monkeypatch.setattr(softmax_bench, "run_on_ranks", on_the_pool)
