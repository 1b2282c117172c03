"""The ranks' part of the lookup benchmark on tiny tables: who computes what, and how often they have their turn."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch.distributed as dist

from common.samplers import SAME_ID
from lookup import race
from lookup.lineup import FLOOR, OURS, SYSTEMS, TRANSPORTS, build, default_names, fitting
from lookup.measure import TOLERANCE, tolerance
from lookup.problem import Problem, draw_batch
from lookup.race import Pace, pace_of
from lookup.reference import difference, expect
from tests.rank_pool import RankPool

PROBLEM = Problem(num_embeddings=131, embedding_dim=8, ids=40)
ALONE = ("embedding_sparse", "embedding_dense")  # of one rank
HERE = [name for name in SYSTEMS if name not in ("torchrec", *ALONE)]  # what needs no other environment


def differences(group: dist.ProcessGroup, names: Sequence[str], problem: Problem) -> dict[str, dict[str, float]]:
    return race.compare(names, problem, group)[1]


def difference_of_a_wrong_one(group: dist.ProcessGroup, change: dict[str, Any]) -> float:
    """How far a contender is off that is changed so."""
    contender = replace(build("collective", "SGD", PROBLEM, group), **change)
    return difference(contender, expect(PROBLEM, "SGD", group), PROBLEM, group)


def difference_of_a_forgetful_one(group: dist.ProcessGroup) -> float:
    """How far RowWiseAdagrad is off if it loses its state before each step."""
    contender = build("collective", "RowWiseAdagrad", PROBLEM, group)
    update = contender.update
    optimizer = inspect.getclosurevars(update).nonlocals["optimizer"]

    def forgetful() -> None:
        optimizer.state.clear()
        update()

    return difference(replace(contender, update=forgetful), expect(PROBLEM, "RowWiseAdagrad", group), PROBLEM, group)


@pytest.mark.parametrize(("names", "world_size"), [(default_names(sweep=True), 1), (HERE, 3)])
def test_contenders_compute_the_same(ranks: RankPool, names: list[str], world_size: int) -> None:
    for found in ranks.run(differences, names, PROBLEM, world_size=world_size):
        assert set(found["SGD"]) == set(names) - {FLOOR}
        assert set(found["RowWiseAdagrad"]) == set(names) - {FLOOR, "dtensor", "ddp_dense"}
        for of_update in found.values():
            assert all(value <= tolerance(name) for name, value in of_update.items())


def test_contenders_that_pool_compute_the_same(ranks: RankPool) -> None:
    names = [name for name in HERE if SYSTEMS[name].pools]
    assert {*OURS, FLOOR} == set(names)
    for found in ranks.run(differences, names, replace(PROBLEM, ids_per_bag=5), world_size=3):
        for of_update in found.values():
            assert set(of_update) == set(OURS)
            assert all(value <= tolerance(name) for name, value in of_update.items())


@pytest.mark.parametrize(
    "problem", [replace(PROBLEM, skew=SAME_ID), replace(PROBLEM, skew=0.0), replace(PROBLEM, num_embeddings=3)]
)
def test_contenders_compute_the_same_with_other_ids(ranks: RankPool, problem: Problem) -> None:
    for found in ranks.run(differences, default_names(sweep=True), problem, world_size=2):
        assert max(max(of_update.values()) for of_update in found.values()) <= TOLERANCE


def test_comparison_finds_a_contender_that_learns_differently(ranks: RankPool) -> None:
    for right in ranks.run(difference_of_a_wrong_one, {}, world_size=2):
        assert right <= TOLERANCE
    for wrong in ranks.run(difference_of_a_wrong_one, {"gradient_scale": 1.5}, world_size=2):
        assert wrong > 100 * TOLERANCE
    for wrong in ranks.run(difference_of_a_wrong_one, {"gradient_scale": float("nan")}, world_size=2):
        assert wrong != wrong


def test_comparison_finds_an_optimizer_that_forgets(ranks: RankPool) -> None:
    assert min(ranks.run(difference_of_a_forgetful_one, world_size=2)) > 100 * TOLERANCE


def test_race_counts_steps_and_traffic(ranks: RankPool) -> None:
    variants = [f"{transport}{option}" for transport in TRANSPORTS for option in ("", "+duplicates", "+bf16")]
    names = [*variants, FLOOR, "megatron", "dtensor", "ddp_sparse", "ddp_dense"]
    for answer in ranks.run(race.race, names, PROBLEM, 3, world_size=2):
        assert list(answer["timings"]) == names
        for timing in answer["timings"].values():
            moments = [timing[name] for name in ("began", "looked_up", "ended")]
            assert len(timing["began"]) >= 3
            assert all(began < looked_up < ended for began, looked_up, ended in zip(*moments, strict=True))
        traffic = {name: (t["collectives"], t["bytes_sent"]) for name, t in answer["timings"].items()}
        ids, rows = 40 * 8, 40 * 8 * 4
        assert traffic[FLOOR] == (0, 0)
        assert traffic["megatron"] == (3, ids + 2 * rows + rows)  # ids, masked rows of both ranks, gradients
        assert traffic["ddp_dense"] == (1, 131 * 8 * 4)
        assert traffic["ddp_sparse"] == (1, ids + rows)
        assert traffic["dtensor"][0] >= 3
        for transport in TRANSPORTS:
            assert 0 < traffic[transport][1] < traffic[f"{transport}+duplicates"][1]
            assert 0 < traffic[f"{transport}+bf16"][1] < traffic[transport][1]


@pytest.mark.parametrize(
    ("seconds", "repetitions", "pace"),
    [
        (0.001, 20, Pace(10, 1)),
        (0.1, 20, Pace(5, 1)),
        (0.6, 20, Pace(1, 2)),
        (60.0, 20, Pace(1, 9)),  # in turns 0, 9 and 18
        (60.0, 2, Pace(1, 1)),
    ],
)
def test_slow_contenders_take_fewer_steps(seconds: float, repetitions: int, pace: Pace) -> None:
    assert pace_of(seconds, repetitions) == pace


def test_contenders_without_room_are_left_out() -> None:
    problem = Problem(1000, 250, 1)  # a table of 1 MB
    names = ["shared_memory", "floor", "dtensor", "ddp_sparse", "ddp_dense"]
    assert fitting(names, problem, 4, 22e6) == names  # 1 + 1 + 4 + 4 + 12
    assert fitting(names, problem, 4, 21e6) == names[:-1]
    assert fitting(names, problem, 4, 6e6) == names[:3]
    assert fitting(names, problem, 4, 1e6) == names[:1]
    assert fitting(names, problem, 4, 0.9e6) == []


def test_variants_have_names_of_their_own() -> None:
    assert len(OURS) == 16
    assert OURS["collective+round_robin+duplicates"] == {
        "transport": "collective",
        "layout": "round_robin",
        "deduplicate": False,
    }


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
    assert draw_batch(replace(problem, skew=SAME_ID), 0, 0).ids.eq(0).all()
