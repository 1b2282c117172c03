"""The lookup benchmark on tiny tables: what it computes and writes, never how long it takes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lookup_bench
import memory_bench
import pytest
import torch
import torch.distributed as dist
from contenders import Problem, build, draw_batch
from race import ENTRIES, compare, race
from ranks import run_on_ranks
from torch.multiprocessing.spawn import ProcessRaisedException

from tests.rank_pool import RankPool

PROBLEM = Problem(num_embeddings=131, embedding_dim=8, ids=40)
SMALL = ["--ranks=2", "--num_embeddings=131", "--embedding_dim=8", "--ids=40", "--repetitions=2"]
EQUALS = {"sharded/SGD", "replicated/SGD", "ddp/SGD"}


def compare_with_a_faster_learner(group: dist.ProcessGroup) -> dict[str, float]:
    """What compare finds if the second contender has another learning rate."""
    contenders = {name: build("sharded", "SGD", PROBLEM, group) for name in ("right", "wrong")}
    contenders["wrong"].optimizer.param_groups[0]["lr"] *= 1.5
    return compare(contenders, PROBLEM, group)


def fail_on_rank_1(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) == 1:
        raise ValueError("this rank is broken")
    dist.barrier(group)


@pytest.mark.parametrize("layout", ["contiguous", "round_robin"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_contenders_compute_the_same(ranks: RankPool, world_size: int, layout: Any) -> None:
    problem = replace(PROBLEM, layout=layout)
    for answer in ranks.run(race, problem, 1, world_size=world_size):
        assert set(answer["differences"]) == EQUALS
        assert max(answer["differences"].values()) <= lookup_bench.TOLERANCE
        assert set(answer["timings"]) == {entry.key for entry in ENTRIES}


def test_comparison_finds_a_contender_that_learns_differently(ranks: RankPool) -> None:
    for differences in ranks.run(compare_with_a_faster_learner, world_size=2):
        assert differences["right"] == 0
        assert differences["wrong"] > 100 * lookup_bench.TOLERANCE
        assert "wrong by" in lookup_bench.find_disagreement(differences)


def test_not_a_number_is_a_disagreement() -> None:
    assert lookup_bench.find_disagreement({"ddp/SGD": 1e-6}) == ""
    assert "ddp/SGD by nan" in lookup_bench.find_disagreement({"ddp/SGD": float("nan")})


def test_race_counts_steps_and_traffic(ranks: RankPool) -> None:
    for answer in ranks.run(race, PROBLEM, 2, world_size=2):
        for entry in ENTRIES:
            timing = answer["timings"][entry.key]
            assert len(timing["forward"]) == len(timing["step"]) == 2 * entry.steps
            assert all(0 < f < s for f, s in zip(timing["forward"], timing["step"], strict=True))
        traffic = {key: (t["collectives"], t["bytes_sent"]) for key, t in answer["timings"].items()}
        assert traffic["local/SGD"] == (0, 0)
        assert traffic["replicated/SGD"] == (2, 40 * (8 + 8 * 4))
        assert traffic["ddp/SGD"] == (1, 131 * 8 * 4)
        assert traffic["sharded/SGD"] == traffic["sharded/RowWiseAdagrad"]
        assert traffic["sharded/SGD"][0] == 4  # header, ids, rows, gradients


def test_batches_depend_on_rank_number_and_skew() -> None:
    problem = Problem(num_embeddings=1000, embedding_dim=2, ids=20_000)
    ids = draw_batch(problem, 0, 0).ids
    assert ids.equal(draw_batch(problem, 0, 0).ids)
    assert not ids.equal(draw_batch(problem, 1, 0).ids)
    assert not ids.equal(draw_batch(problem, 0, 1).ids)
    # Log-uniform: a third of all ids below 9, another below 99; uniform: a hundredth below 10.
    assert (ids < 9).double().mean() == pytest.approx(1 / 3, abs=0.02)
    assert (ids < 99).double().mean() == pytest.approx(2 / 3, abs=0.02)
    uniform = draw_batch(replace(problem, skew=0.0), 0, 0).ids
    assert (uniform < 10).double().mean() == pytest.approx(0.01, abs=0.005)
    assert uniform.max() == 999
    assert (draw_batch(replace(problem, skew=2.0), 0, 0).ids == 0).double().mean() == pytest.approx(0.5, abs=0.02)


def test_lookup_bench_writes_its_figures(
    ranks: RankPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_on_the_pool(ranks, monkeypatch)
    file = tmp_path / "figures.json"
    assert lookup_bench.main([*SMALL, f"--json={file}"]) == 0

    report = json.loads(file.read_text(encoding="utf-8"))
    assert set(report["largest_difference_from_ours"]) == EQUALS
    assert report["settings"]["embedding_dim"] == 8
    assert report["torch"] == torch.__version__
    assert [f"{c['contender']}/{c['update']}" for c in report["contenders"]] == [e.key for e in ENTRIES]
    for contender in report["contenders"]:
        step = contender["step_ms"]
        assert contender["forward_ms"]["median"] < step["median"]
        assert step["lowest"] <= step["first_quartile"] <= step["median"]
        assert step["median"] <= step["third_quartile"] <= step["highest"]
        assert contender["peak_bytes_above_idle"] == 2 * 2**20
    output = capsys.readouterr().out
    assert all(title in output for title in lookup_bench.TITLES.values())
    assert "times as fast as DDP" in output


def test_lookup_bench_gives_no_timings_when_contenders_disagree(
    ranks: RankPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_on_the_pool(ranks, monkeypatch)
    monkeypatch.setattr(lookup_bench, "TOLERANCE", -1.0)
    assert lookup_bench.main([*SMALL, f"--json={tmp_path / 'figures.json'}"]) == 1
    assert not (tmp_path / "figures.json").exists()
    assert "replicated/SGD by" in capsys.readouterr().err


def run_on_the_pool(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes seconds: race on the pool's, and leave measuring memory to a test of its own."""

    def on_the_pool(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size)

    def two_mebibytes(*_: object) -> Sequence[memory_bench.Memory]:
        return [{"idle": 0, "above_idle": 2**20}, {"idle": 0, "above_idle": 2 * 2**20}]

    monkeypatch.setattr(lookup_bench, "run_on_ranks", on_the_pool)
    monkeypatch.setattr(lookup_bench, "peak_above_idle", two_mebibytes)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status, which Linux has")
def test_memory_bench_measures_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "memory.json"
    arguments = ["--ranks=2", "--num_embeddings=400000", "--embedding_dim=64", "--ids=16", "--limit=0.5"]
    assert memory_bench.main([*arguments, f"--json={file}"]) == 1  # half of a shard cannot be enough
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["least"] == 200_000 * 65 * 4
    assert report["ratio"] == max(rank["above_idle"] for rank in report["memory"]) / report["least"]
    assert all(0.95 < rank["above_idle"] / report["least"] < 1.6 for rank in report["memory"])
    assert "FAILED" in capsys.readouterr().out


def test_a_failing_rank_tells_why_and_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessRaisedException):
        run_on_ranks(fail_on_rank_1, 2)
    assert "ValueError: this rank is broken" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1"])
def test_sizes_are_positive(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lookup_bench.main(["--ids", text])
    assert f"must be at least 1, but is {text}" in capsys.readouterr().err


def test_a_missing_folder_is_told_before_measuring(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        lookup_bench.main([f"--json={tmp_path / 'missing' / 'figures.json'}"])
    assert "there is no folder" in capsys.readouterr().err
