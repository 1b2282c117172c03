"""Predicted times against common sense; what the model knows of a machine is made up."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dist_s2s.cost.problem import Cluster, Problem
from dist_s2s.cost.seconds import EXCHANGES, amounts, step_seconds
from tests.cost.machines import HOST, HOSTS, KNOWN, PROBLEM


def total(problem: Problem) -> float:
    return sum(step_seconds(problem, KNOWN.coefficients).values())


@pytest.mark.parametrize(
    "change",
    [
        {"ids": 8_192},
        {"embedding_dim": 128},
        {"skew": 0.0},
        {"transport": "collective"},
        {"dtype": torch.float64},
        {"layout": "contiguous"},
        {"averaged": True},
        {"cluster": replace(HOST, cores=2)},
        {"cluster": replace(HOST, ranks=8, cores=8)},
    ],
)
def test_more_work_takes_longer(change: dict[str, Any]) -> None:
    assert total(replace(PROBLEM, **change)) > 1.01 * total(PROBLEM)


@pytest.mark.parametrize(
    "change", [{"bandwidth": 1e8}, {"latency": 1e-3}, {"cores": 4}, {"ranks": 1_024, "hosts": 128}]
)
def test_slower_networks_and_more_messages_take_longer(change: dict[str, Any]) -> None:
    problem = replace(PROBLEM, transport="collective", cluster=HOSTS)
    assert total(replace(problem, cluster=replace(HOSTS, **change))) > 1.01 * total(problem)


def test_the_network_is_part_of_latency_and_transfer() -> None:
    problem = replace(PROBLEM, transport="collective", layout="contiguous", cluster=HOSTS)
    slow = step_seconds(replace(problem, cluster=replace(HOSTS, bandwidth=1e6)), KNOWN.coefficients)
    slower = step_seconds(replace(problem, cluster=replace(HOSTS, bandwidth=5e5)), KNOWN.coefficients)
    assert slower["transfer"] == pytest.approx(2 * slow["transfer"])
    far = step_seconds(replace(problem, cluster=replace(HOSTS, latency=1.0)), KNOWN.coefficients)
    assert far["latency"] == pytest.approx(
        step_seconds(problem, KNOWN.coefficients)["latency"] + EXCHANGES["collective"] * (1.0 - HOSTS.latency)
    )


def test_a_single_rank_waits_for_nobody() -> None:
    alone = step_seconds(replace(PROBLEM, cluster=Cluster(1, 1, 4)), KNOWN.coefficients)
    assert alone["latency"] == alone["transfer"] == 0 < alone["rows"]


def test_ranks_that_share_a_core_take_turns() -> None:
    crowded = replace(PROBLEM, cluster=replace(HOST, cores=2))
    assert total(crowded) == pytest.approx(2 * total(PROBLEM), rel=0.01)
    # Three of four ranks wait for the busiest one: a second core for each pair does not help it.
    busy = replace(PROBLEM, layout="contiguous", skew=1.5)
    shared = replace(busy, cluster=replace(HOST, cores=3))
    assert amounts(shared)["row_byte"] < 4 / 3 * amounts(busy)["row_byte"]
