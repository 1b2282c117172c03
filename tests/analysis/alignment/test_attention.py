"""Counts of what a translator looks at become a dictionary."""

from collections import Counter

import pytest

from dist_s2s.analysis.alignment.attention import dice, mutual_best, ranks_by

COUNTS = Counter(
    {
        ("Hund", "dog"): 6,
        ("Hund", "the"): 2,
        ("der", "the"): 8,
        ("der", "dog"): 2,
        ("Katze", "dog"): 3,
        ("Tag", "day"): 1,
    }
)


def test_dice_of_what_was_counted_more_than_once() -> None:
    scores = dice(COUNTS)
    assert ("Tag", "day") not in scores
    assert scores["Hund", "dog"] == pytest.approx(2 * 6 / (8 + 11))
    assert scores["der", "the"] == pytest.approx(2 * 8 / (10 + 10))


def test_words_that_are_each_others_best() -> None:
    assert sorted(mutual_best(dice(COUNTS))) == [("Hund", "dog"), ("der", "the")]
    tied = {("a", "y"): 0.5, ("a", "x"): 0.5, ("b", "x"): 0.5}
    assert mutual_best(tied) == [("a", "y")]  # of equal ones the first counts
    assert mutual_best({}) == []


def test_ranks_of_translations() -> None:
    wanted = [("Katze", "cat"), ("Hund", "hound"), ("Hund", "the"), ("Maus", "mouse"), ("der", "the")]
    assert ranks_by(dice(COUNTS), wanted, candidates=9) == [9, 2, 9, 1]
