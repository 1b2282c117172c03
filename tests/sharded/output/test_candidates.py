"""Which candidates are drawn, how often, and whether their inclusion probabilities say so."""

import math

import pytest
import torch

from dist_s2s.sharded.output.candidates import cumulative_shares, draw_candidates

V = 131


def test_draws_follow_the_distribution():
    """Chi-square over 12 classes; with 11 degrees of freedom it is above 35 once in 4,000 times."""
    draws, counts = 10_000, torch.tensor([0, 5, 1, 0, 30, 2, 2, 9, 1, 1, 3, 0])
    log_uniform = [math.log((i + 2) / (i + 1)) / math.log(13) for i in range(12)]
    by_frequency = [count / 54 for count in counts.tolist()]
    for cumulative, shares in ((None, log_uniform), (cumulative_shares(counts), by_frequency)):
        drawn = torch.zeros(12)
        for step in range(draws):
            ids, log_inclusion = draw_candidates(1, 12, cumulative, seed=1, step=step)
            drawn[ids] += 1
            assert math.exp(log_inclusion) == pytest.approx(shares[int(ids)])
        expected = draws * torch.tensor(shares)
        assert drawn[expected == 0].sum() == 0
        possible = expected > 0
        assert ((drawn - expected)[possible].square() / expected[possible]).sum() < 35


def test_inclusion_probabilities_are_how_often_a_class_is_a_candidate():
    draws, included, probability = 4000, torch.zeros(V), torch.zeros(V, dtype=torch.float64)
    for step in range(draws):
        ids, log_inclusion = draw_candidates(50, V, None, seed=2, step=step)
        assert torch.equal(ids, ids.unique())
        included[ids] += 1
        probability[ids] = log_inclusion.exp()
    assert probability.min() > 0  # each was drawn once at least
    sigma = (probability * (1 - probability) * draws).sqrt()
    assert ((included - draws * probability).abs() <= 5 * sigma).all()


@pytest.mark.parametrize("num_classes", [1, 2, V, 10**12])
def test_candidates_are_classes(num_classes: int):
    for step in range(20):
        ids, log_inclusion = draw_candidates(1000, num_classes, None, seed=0, step=step)
        assert ids.min() >= 0
        assert ids.max() < num_classes
        assert log_inclusion.isfinite().all()
        assert log_inclusion.max() <= 0


def test_the_least_and_the_greatest_uniform_numbers_draw_classes(monkeypatch: pytest.MonkeyPatch):
    extremes = torch.tensor([0.0, 0.25, 1 - 2**-53], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: extremes.clone())
    cumulative = cumulative_shares(torch.tensor([0, 1, 3, 0]))
    assert draw_candidates(3, 4, cumulative, seed=0, step=0)[0].tolist() == [1, 2]  # never a class without frequency
    assert draw_candidates(3, 4, None, seed=0, step=0)[0].tolist() == [0, 3]
