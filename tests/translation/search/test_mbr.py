"""Minimum Bayes risk against sacreBLEU's own sentence chrF."""

import pytest
from sacrebleu.metrics.chrf import CHRF

from dist_s2s.distributed import Ranks
from dist_s2s.models import Hypothesis
from dist_s2s.translation.search.joining import Candidate, Translation
from dist_s2s.translation.search.mbr import choose_by_risk, chrf, least_risk

TEXTS = [
    "the cat sat on the mat .",
    "the cat sat",
    "",
    "a",
    "aaaa aaaaaaa",
    " ",
    "猫坐在垫子上。",
    "the the the the",
    "The Cat",
]


def test_utilities_are_sacrebleus() -> None:
    metric, found = CHRF(), chrf(TEXTS)
    for row, hypothesis in enumerate(TEXTS):
        expected = [metric.sentence_score(hypothesis, [reference]).score for reference in TEXTS]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-10)


def test_the_sample_that_is_most_like_the_others() -> None:
    samples = ["the cat sat", "a dog ran", "the cat sits", "the cat sat", "the bat sat", "x"]
    metric = CHRF()

    def utility(place: int) -> float:
        others = samples[:place] + samples[place + 1 :]
        return sum(metric.sentence_score(samples[place], [other]).score for other in others) / len(others)

    best = max(range(len(samples)), key=utility)
    assert least_risk(samples) == best == 0
    assert least_risk(["a b", "c d"]) == 0  # the first of equals
    assert least_risk(["", ""]) == least_risk(["one"]) == 0
    assert least_risk(["x", "the cat", "the bat"]) == 1

    def translation(texts: list[str]) -> Translation:
        return Translation(["?"], [Candidate(text, -1.0, False, (Hypothesis([], -1.0),)) for text in texts])

    found = choose_by_risk([translation(samples[1:]), translation(["x"])], Ranks.alone())
    assert [[each.text for each in one.n_best] for one in found] == [["the cat sat"], ["x"]]
