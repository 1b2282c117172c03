"""The scaling benchmark on tiny tables: what it computes and writes, never how long it takes."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import scaling_bench
import torch
import torch.distributed as dist
from scaling_steps import STEPS_PER_TURN, Model, Settings, compare, draw, entries, measure

from dist_s2s.cost.ranks import run_on_ranks
from tests.rank_pool import RankPool

SETTINGS = Settings((131, 300, 1310), embedding_dim=8, ids=40, tokens=12, num_samples=30, layout="contiguous")
SMALL = ["--embedding_dim=8", "--ids=40", "--tokens=12", "--num_samples=30", "--repetitions=2"]


def compare_with_a_wrong_model(group: dist.ProcessGroup, wrong: str) -> list[str]:
    """What compare finds if the largest model has another learning rate, or on rank 0 other rows."""
    models = {v: Model(v, SETTINGS, group) for v in SETTINGS.num_embeddings}
    if wrong == "learning rate":
        models[1310].optimizer.param_groups[0]["lr"] *= 1.5
    elif dist.get_rank(group) == 0:
        with torch.no_grad():
            models[1310].table.weight.mul_(2)
    return compare(models, SETTINGS, group)


def updates_of_each_step(group: dist.ProcessGroup, layout: Any) -> dict[str, int]:
    """How many rows this rank updates in the first step of each entry, by its name."""
    settings = Settings((131, 1310), embedding_dim=2, ids=40, tokens=12, num_samples=30, layout=layout)
    models = {v: Model(v, settings, group) for v in settings.num_embeddings}
    return {
        f"{entry.kind} {entry.num_embeddings} {entry.way}": models[entry.num_embeddings].step(
            entry.kind, entry.way, draw(entry.kind, settings, dist.get_rank(group), 0)
        )[1]
        for entry in entries(settings)
    }


def spread_ids(group: dist.ProcessGroup, layout: Any) -> list[tuple[int, int, int, int]]:
    """For each id of the smallest table its owner, the id in a larger one, its owner there, and the size of that."""
    found = []
    for larger in (132, 400, 1310, 13_100):
        settings = Settings((131, larger), embedding_dim=1, ids=1, tokens=1, num_samples=1, layout=layout)
        small, large = (Model(v, settings, group) for v in settings.num_embeddings)
        for number in range(131):
            spread = number * large.factors["spread"]
            owners = [model.table.partition.owner_and_row(i)[0] for model, i in ((small, number), (large, spread))]
            found.append((owners[0], spread, owners[1], larger))
    return found


@pytest.mark.parametrize("world_size", [1, 3])
def test_steps_are_equal_at_all_sizes(ranks: RankPool, world_size: int) -> None:
    for answer in ranks.run(measure, SETTINGS, 1, world_size=world_size):
        assert answer["differences"] == []
        assert len(answer["timings"]) == len(entries(SETTINGS)) == 2 * (1 + 2 * 2)
        for timing in answer["timings"]:
            assert len(timing["seconds"]) == STEPS_PER_TURN
            assert min(timing["seconds"]) > 0


def test_comparison_finds_a_model_that_learns_differently(ranks: RankPool) -> None:
    for differences in ranks.run(compare_with_a_wrong_model, "learning rate", world_size=2):
        assert "lookup: updated rows at 1,310 rows" in differences
        assert "lookup: output at 1,310 rows" not in differences  # which is of the rows before the update
        assert "sampled: output at 1,310 rows" in differences
        assert not any("300 rows" in difference for difference in differences)


def test_comparison_finds_other_rows(ranks: RankPool) -> None:
    for differences in ranks.run(compare_with_a_wrong_model, "rows", world_size=2):
        assert {"lookup: output at 1,310 rows", "sampled: output at 1,310 rows"} <= set(differences)


@pytest.mark.parametrize("layout", ["contiguous", "round_robin"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_spread_ids_are_far_apart_and_shared_alike(ranks: RankPool, world_size: int, layout: Any) -> None:
    found = ranks.run(spread_ids, layout, world_size=world_size)[0]
    assert all(spread < larger for _, spread, _, larger in found)
    largest = [spread for _, spread, _, larger in found if larger == 13_100]
    assert min(b - a for a, b in pairwise(largest)) >= 98
    moved = sum(owner != owner_of_spread for owner, _, owner_of_spread, larger in found if larger == 13_100)
    assert moved <= (0 if layout == "round_robin" else 4)


def test_round_robin_divides_the_work_alike_at_all_sizes(ranks: RankPool) -> None:
    for answer in ranks.run(updates_of_each_step, "round_robin", world_size=2):
        assert answer["lookup 131 same"] == answer["lookup 1310 same"] == answer["lookup 1310 spread"]
        assert answer["sampled 131 same"] == answer["sampled 1310 same"] < answer["sampled 1310 spread"]


@pytest.mark.parametrize(("limit", "status"), [("1e-9", 1), ("1e9", 0)])
def test_scaling_bench_writes_its_figures(
    ranks: RankPool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    limit: str,
    status: int,
) -> None:
    run_on_the_pool(ranks, monkeypatch)
    file = tmp_path / "figures.json"
    sizes = ["--num_embeddings", "1310", "131"]  # in any order
    assert scaling_bench.main([*SMALL, *sizes, f"--limit={limit}", f"--json={file}"]) == status

    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["settings"]["num_embeddings"] == [1310, 131]
    steps = report["steps"]
    assert [(step["kind"], step["num_embeddings"], step["way"]) for step in steps] == [
        (kind, *entry) for kind in ("lookup", "sampled") for entry in ((131, "same"), (1310, "same"), (1310, "spread"))
    ]
    for step in steps:
        assert 0 < step["first_quartile_ms"] <= step["median_ms"] <= step["third_quartile_ms"]
        smallest = next(other for other in steps if other["kind"] == step["kind"])
        assert step["ratio"] == step["median_ms"] / smallest["median_ms"]
    same = [step["ratio"] for step in steps if step["way"] == "same" and step["num_embeddings"] == 1310]
    assert report["highest_ratio_with_the_same_ids"] == max(same)
    output = capsys.readouterr().out
    assert ("FAILED" if status else "passed") in output
    assert "1,310" in output


def test_each_step_lasts_as_long_as_its_slowest_rank() -> None:
    settings = Settings((1, 2), embedding_dim=1, ids=1, tokens=1, num_samples=1, layout="contiguous")
    seconds = ([0.001, 0.004, 0.002], [0.003, 0.001, 0.002])
    answers: Any = [
        {"differences": [], "timings": [{"seconds": mine, "updated_rows": rows}] * 6}
        for mine, rows in zip(seconds, (5.0, 7.0), strict=True)
    ]
    for result in scaling_bench.summarize(settings, answers):
        assert (result.first_quartile_ms, result.median_ms, result.third_quartile_ms) == pytest.approx((2.5, 3.0, 3.5))
        assert (result.updated_rows, result.ratio) == (7.0, 1.0)


def test_scaling_bench_gives_no_timings_when_steps_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [{"differences": differences, "timings": []} for differences in ([], ["lookup: output at 1,310 rows"])]
    monkeypatch.setattr(scaling_bench, "run_on_ranks", lambda *_: answers)
    assert scaling_bench.main([*SMALL, f"--json={tmp_path / 'figures.json'}"]) == 1
    assert not (tmp_path / "figures.json").exists()
    assert "lookup: output at 1,310 rows" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", [["131"], ["131", "131"]])
def test_sizes_must_differ(sizes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scaling_bench.main(["--num_embeddings", *sizes])
    assert f"needs two or more different sizes, but has {', '.join(sizes)}" in capsys.readouterr().err


def run_on_the_pool(ranks: RankPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes seconds: measure on the pool's."""
    assert scaling_bench.run_on_ranks is run_on_ranks

    def on_the_pool(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        return ranks.run(function, *args, world_size=world_size)

    monkeypatch.setattr(scaling_bench, "run_on_ranks", on_the_pool)
