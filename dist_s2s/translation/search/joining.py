"""Translations of sentences, and of long ones from those of their pieces."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter

from dist_s2s.models import Hypothesis
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers.spaces import is_unspaced
from dist_s2s.text.tokenizers.whitespace import WhitespaceTokenizer


@dataclass(frozen=True)
class Candidate:
    """A translation that was found.

    Attributes:
        text: the sentence.
        score: as of a Hypothesis; of several pieces the mean of theirs, by the length of each piece's best.
        is_cut: it has reached the longest length that it may have, or a piece of it has, and may lack its end.
        parts: the hypothesis of each piece.
    """

    text: str
    score: float
    is_cut: bool
    parts: tuple[Hypothesis, ...]


@dataclass(frozen=True)
class Translation:
    """What was found for a sentence.

    Attributes:
        pieces: the sentence, or what it was cut into because it is long.
        n_best: translations, the best first; one at least.
    """

    pieces: list[str]
    n_best: list[Candidate]

    @property
    def text(self) -> str:
        """The best translation."""
        return self.n_best[0].text

    @property
    def is_cut(self) -> bool:
        """Whether the best translation is cut."""
        return self.n_best[0].is_cut

    @property
    def in_one_piece(self) -> Hypothesis | None:
        """The best hypothesis; None of a sentence that was translated in pieces."""
        return self.n_best[0].parts[0] if len(self.pieces) == 1 else None


def all_parts(translations: Iterable[Translation]) -> Iterator[tuple[str, Hypothesis]]:
    """Yield each piece of a sentence with its hypothesis, of every candidate of every translation, in their order."""
    for each in translations:
        for candidate in each.n_best:
            yield from zip(each.pieces, candidate.parts, strict=True)


def join_pieces(pieces: list[str], found: Sequence[Sequence[Hypothesis]], n_best: int, side: TextSide) -> Translation:
    """Return the translation of a sentence from what was found for each of its pieces.

    Args:
        pieces: of the sentence, in order.
        found: hypotheses of each, the best first.
        n_best: most translations that are wanted.
        side: of the target.
    """
    lengths = [len(best.ids) + 1 for best, *_ in found]
    combined = _best_combinations(found, lengths, n_best)
    return Translation(pieces, [_candidate(parts, total / sum(lengths), side) for parts, total in combined])


def _best_combinations(
    found: Sequence[Sequence[Hypothesis]], lengths: Sequence[int], n_best: int
) -> list[tuple[tuple[Hypothesis, ...], float]]:
    """Return the best choices of a hypothesis of each piece, each with the sum of its scores times lengths.

    Which hypothesis of a piece is better does not depend on the others, so the best of what is longer by a piece are
    among the best of what was there before it. As in a beam, each remembers which of those it continues: a line may
    have thousands of pieces, and to copy what is before each of them would take the square of that.
    """
    totals, steps = [0.0], list[list[tuple[int, Hypothesis]]]()
    for hypotheses, length in zip(found, lengths, strict=True):
        longer = (
            (total + each.score * length, before, each) for before, total in enumerate(totals) for each in hypotheses
        )
        best = nlargest(n_best, longer, key=itemgetter(0))
        totals = [total for total, _, _ in best]
        steps.append([(before, each) for _, before, each in best])
    return [(_followed(steps, last), total) for last, total in enumerate(totals)]


def _followed(steps: Sequence[Sequence[tuple[int, Hypothesis]]], place: int) -> tuple[Hypothesis, ...]:
    """Return the hypotheses that lead to a place of the last step."""
    parts = list[Hypothesis]()
    for step in reversed(steps):
        place, hypothesis = step[place]
        parts.append(hypothesis)
    return tuple(reversed(parts))


def join_samples(pieces: list[str], found: Sequence[Sequence[Hypothesis]], side: TextSide) -> Translation:
    """Return the samples of a sentence, in their order, from those of its pieces: the first of all pieces, and so on.

    A piece without a token has the same empty translation in all of them.
    """
    samples = []
    for number in range(max(map(len, found))):
        parts = tuple(hypotheses[min(number, len(hypotheses) - 1)] for hypotheses in found)
        lengths = [len(part.ids) + 1 for part in parts]
        total = sum(part.score * length for part, length in zip(parts, lengths, strict=True))
        samples.append(_candidate(parts, total / sum(lengths), side))
    return Translation(pieces, samples)


def _candidate(parts: tuple[Hypothesis, ...], score: float, side: TextSide) -> Candidate:
    text = join_texts([side.decode(part.ids) for part in parts], side)
    score = parts[0].score if len(parts) == 1 else score
    return Candidate(text, score, any(part.is_cut for part in parts), parts)


def join_texts(texts: Sequence[str], side: TextSide) -> str:
    """Return the translation of a sentence from the texts of its pieces' translations."""
    return texts[0] if len(texts) == 1 else "".join(_with_spaces(texts, side))


def _with_spaces(texts: Sequence[str], side: TextSide) -> Iterator[str]:
    """Yield texts with a space between two, but with none beside a script that is written without."""
    before = ""
    for text in filter(None, (text.strip() for text in texts)):
        touches = is_unspaced(before[-1:] or text[0]) or is_unspaced(text[0])
        if before and (not touches or isinstance(side.tokenizer, WhitespaceTokenizer)):
            yield " "
        yield text
        before = text
