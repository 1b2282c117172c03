"""Where errors are, counted by hand on three sentences, and by sacreBLEU."""

import pytest
from sacrebleu.metrics.chrf import CHRF

from dist_s2s.analysis.errors import (
    FREQUENCIES,
    WordErrors,
    by_frequency,
    by_length,
    by_position,
    right_words,
    worst,
)
from dist_s2s.translation.scores.scoring import Row, Scorer

ROWS: list[Row] = [
    ("a b c", "the cat sat", "the the cat"),
    ("a " * 6, "one two three four five", "one two three four five"),
    ("", "nothing", ""),
]
COUNTS = {"the": 150, "cat": 5, "sat": 1, "one": 20_000, "two": 9, "three": 10, "four": 1000, "five": 100}


def test_a_word_is_right_as_often_as_the_other_sentence_has_it() -> None:
    assert right_words(["the", "the", "cat"], ["the", "cat", "sat"]) == [True, False, True]
    assert right_words([], ["a"]) == []


def test_by_frequency() -> None:
    found = {each.first: each for each in by_frequency(ROWS, str.split, COUNTS)}
    assert tuple(found) == FREQUENCIES
    assert [found[first].last for first in FREQUENCIES] == [0, 1, 9, 99, 999, 9999, None]
    assert found[0] == WordErrors(0, 0, 1, 0.0, 0, None)  # nothing
    assert found[1] == WordErrors(1, 1, 1, 0.0, 0, None)  # sat
    assert found[2] == WordErrors(2, 9, 2, 1.0, 2, 1.0)  # cat, two
    assert found[100] == WordErrors(100, 999, 2, 1.0, 3, 2 / 3)  # the, five
    assert found[100].f1 == pytest.approx(0.8)
    assert (found[0].f1, WordErrors(1, 1, 0, None, 0, None).f1) == (0.0, None)
    assert WordErrors(1, 1, 2, 0.0, 2, 0.0).f1 == 0.0


def test_by_position() -> None:
    found = by_position(ROWS[:2], str.split)
    # The middles of three words lie in the parts 1, 3 and 5.
    assert [each.expected for each in found] == [2, 1, 2, 1, 2]
    assert [each.recall for each in found] == [1.0, 1.0, 1.0, 1.0, 0.5]  # sat is missing
    assert [each.precision for each in found] == [1.0, 1.0, 0.5, 1.0, 1.0]  # the second `the` is too much


def test_by_length() -> None:
    scorer = Scorer("13a", [])
    found = by_length(ROWS, str.split, str.split, scorer)
    assert [(each.first, each.last, each.sentences) for each in found] == [(1, 5, 2), (6, 10, 1)]
    assert found[1].bleu == pytest.approx(100)
    assert found[0].chrf == scorer.scores([ROWS[0], ROWS[2]])["chrf"]
    assert found[0].length_ratio == 3 / 4


def test_worst() -> None:
    found = worst([*ROWS, ROWS[2]], 3)
    assert [each.number for each in found] == [3, 4, 1]
    assert found[2].chrf == CHRF().sentence_score("the the cat", ["the cat sat"]).score
    assert found[2].reference == "the cat sat"
    assert worst([], 3) == []
