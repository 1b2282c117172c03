"""Which layout and transport is best, and why."""

from dataclasses import replace

import pytest

from dist_s2s import UserError
from dist_s2s.cost.layouts import compare, reason
from dist_s2s.cost.problem import Cluster
from tests.cost.machines import HOSTS, KNOWN, PROBLEM


def test_the_best_choice_comes_first_and_says_why() -> None:
    found = compare(PROBLEM, None, KNOWN)
    assert len(found) == 4
    assert (found[0].problem.layout, found[0].problem.transport) == ("round_robin", "shared_memory")
    assert found[0].step_seconds == min(choice.step_seconds for choice in found)
    assert "times as long: the busiest owner is asked for 3." in reason(found)
    assert "With collective it takes about" in reason(found)
    assert found[0].imbalance == pytest.approx(1, abs=0.01)


def test_uniform_ids_are_laid_out_contiguously() -> None:
    found = compare(replace(PROBLEM, skew=0.0), "collective", KNOWN)
    assert len(found) == 2
    assert found[0].problem.layout == "contiguous"
    assert reason(found).startswith("With round_robin a step takes about the same time: ")


def test_a_single_rank_has_no_choice_to_make() -> None:
    found = compare(replace(PROBLEM, cluster=Cluster(1, 1, 4)), None, KNOWN)
    assert reason(found) == "One rank owns all rows, and nothing travels."


def test_hosts_share_no_memory() -> None:
    problem = replace(PROBLEM, transport="collective", cluster=HOSTS)
    assert {choice.problem.transport for choice in compare(problem, None, KNOWN)} == {"collective"}
    with pytest.raises(UserError, match="ranks on 8 hosts do not share memory; use auto or collective"):
        compare(problem, "shared_memory", KNOWN)
