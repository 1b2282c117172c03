"""Scores, their intervals, and what chance would give."""

import numpy as np
import pytest

from dist_s2s.analysis.alignment.scores import chance, scores


def test_scores() -> None:
    found = scores([1, 2, 10, 40], seed=1)
    assert {name: score.value for name, score in found.items()} == pytest.approx(
        {"P@1": 0.25, "P@5": 0.5, "P@10": 0.75, "MRR": (1 + 1 / 2 + 1 / 10 + 1 / 40) / 4}
    )
    assert all(0 <= score.low < score.value < score.high <= 1 for score in found.values())
    assert found == scores([1, 2, 10, 40], seed=1)
    assert scores([1], seed=1)["MRR"].low == 1


def test_an_interval_is_as_wide_as_the_normal_one() -> None:
    ranks = np.where(np.arange(900) % 3 == 0, 1, 100).tolist()
    score = scores(ranks, seed=1)["P@1"]
    width = 2 * 1.96 * np.sqrt(1 / 3 * 2 / 3 / 900)
    assert score.high - score.low == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("translations", [1, 3, 12])
def test_chance(translations: int) -> None:
    orders = np.random.default_rng(1).permuted(np.tile(np.arange(1, 13), (20_000, 1)), axis=1)
    best = orders[:, :translations].min(1)
    found = chance([translations], 12)
    assert found == pytest.approx(
        {"P@1": (best <= 1).mean(), "P@5": (best <= 5).mean(), "P@10": (best <= 10).mean(), "MRR": (1 / best).mean()},
        abs=0.01,
    )
    assert chance([1, 1, 2], 1000)["P@1"] == pytest.approx(4 / 3000)
