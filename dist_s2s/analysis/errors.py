"""Where a translator errs: by the length of sentences, by the frequency of words, by their place, and most of all."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise

from sacrebleu.metrics.chrf import CHRF

from dist_s2s.translation.scores.scoring import Row, Scorer

LENGTHS = (1, 6, 11, 16, 21, 31, 41, 61)  # where ranges of source words begin
FREQUENCIES = (0, 1, 2, 10, 100, 1000, 10_000)  # where ranges of occurrences in the training data begin
PARTS = 5  # of a sentence

Cut = Callable[[str], list[str]]


@dataclass(frozen=True)
class LengthErrors:
    """Scores of the sentences whose source has ``first`` to ``last`` words; None: and more.

    Attributes:
        length_ratio: words of the translations for each word of the references; None without one.
    """

    first: int
    last: int | None
    sentences: int
    bleu: float
    chrf: float
    length_ratio: float | None


@dataclass(frozen=True)
class WordErrors:
    """How many of some words are right.

    A word of a translation is right as often as its reference has it (clipped, as for BLEU), the first ones first.

    Attributes:
        first, last: occurrences in the training data, None: and more; or the part of the sentence, counted from 1.
        expected: words of the references.
        recall: share of these that the translations have; None if there are none.
        written: words of the translations.
        precision: share of these that are right; None if there are none.
    """

    first: int
    last: int | None
    expected: int
    recall: float | None
    written: int
    precision: float | None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of recall and precision; None if there is no word to judge by."""
        if self.recall is None or self.precision is None:
            return self.recall if self.precision is None else self.precision
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0


@dataclass(frozen=True)
class BadSentence:
    """A translation with its chrF; ``number`` counts the pairs from 1."""

    number: int
    source: str
    reference: str
    translation: str
    chrf: float


def by_length(rows: Sequence[Row], cut_source: Cut, cut_target: Cut, scorer: Scorer) -> list[LengthErrors]:
    """Score the sentences by how many words their sources have; ranges without a sentence are left out."""
    ranges: dict[int, list[Row]] = {}
    for row in rows:
        ranges.setdefault(range_of(len(cut_source(row[0])), LENGTHS), []).append(row)
    found = []
    for place, some in sorted(ranges.items()):
        scores = scorer.scores(some)
        expected, written = (sum(len(cut_target(row[column])) for row in some) for column in (1, 2))
        ratio = written / expected if expected else None
        found.append(LengthErrors(*limits_of(place, LENGTHS), len(some), scores["bleu"], scores["chrf"], ratio))
    return found


def by_frequency(rows: Sequence[Row], cut_target: Cut, counts: Mapping[str, int]) -> list[WordErrors]:
    """Judge words by how often the training data have them (Neubig et al. 2019, https://arxiv.org/abs/1903.07926).

    Args:
        counts: of the words in the target side of the training data.
    """
    tally = _Tally(len(FREQUENCIES))
    for _, reference, translation in rows:
        words = cut_target(reference), cut_target(translation)
        tally.add(*words, lambda word, _: range_of(counts.get(word, 0), FREQUENCIES))
    return tally.errors([limits_of(place, FREQUENCIES) for place in range(len(FREQUENCIES))])


def by_position(rows: Sequence[Row], cut_target: Cut) -> list[WordErrors]:
    """Judge words by the part of the sentence, of ``PARTS`` equal ones, that their middle lies in."""
    tally = _Tally(PARTS)
    for _, reference, translation in rows:
        tally.add(cut_target(reference), cut_target(translation), lambda _, share: int(share * PARTS))
    return tally.errors([(part + 1, part + 1) for part in range(PARTS)])


def worst(rows: Sequence[Row], number: int) -> list[BadSentence]:
    """Return the translations of the lowest chrF (Popović 2015), the worst first, equal ones in the rows' order."""
    chrf = CHRF()
    scored = [
        BadSentence(place, *row, chrf.sentence_score(row[2], [row[1]]).score) for place, row in enumerate(rows, 1)
    ]
    return nsmallest(number, scored, key=lambda bad: bad.chrf)


def right_words(words: Sequence[str], others: Sequence[str]) -> list[bool]:
    """Tell of each word whether the other sentence has it, as often as it has."""
    left, right = Counter(others), []
    for word in words:
        right.append(left[word] > 0)
        left[word] -= 1
    return right


class _Tally:
    """Words and right words of references and translations, in several classes."""

    def __init__(self, classes: int) -> None:
        self._counts = [[[0, 0], [0, 0]] for _ in range(classes)]

    def add(self, expected: list[str], written: list[str], class_of: Callable[[str, float], int]) -> None:
        """Count the words of a sentence; ``class_of`` takes a word, and where its middle lies between 0 and 1."""
        for side, (words, others) in enumerate([(expected, written), (written, expected)]):
            for place, (word, is_right) in enumerate(zip(words, right_words(words, others), strict=True)):
                count = self._counts[class_of(word, (place + 0.5) / len(words))][side]
                count[0] += 1
                count[1] += is_right

    def errors(self, limits: Sequence[tuple[int, int | None]]) -> list[WordErrors]:
        shares = [[(total, right / total if total else None) for total, right in sides] for sides in self._counts]
        return [
            WordErrors(*limit, *expected, *written) for limit, (expected, written) in zip(limits, shares, strict=True)
        ]


def range_of(number: int, begins: Sequence[int]) -> int:
    """Return in which range a number lies; below all is in the first."""
    return max(sum(begin <= number for begin in begins) - 1, 0)


def limits_of(place: int, begins: Sequence[int]) -> tuple[int, int | None]:
    """Return the first and the last number of a range; None: there is no last."""
    ends = [after - 1 for _, after in pairwise(begins)]
    return begins[place], ends[place] if place < len(ends) else None
