"""Which word of a vector file is which token of a vocabulary."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dist_s2s import counted
from dist_s2s.text.tokenizers.spaces import SPACE
from dist_s2s.text.tokenizers.words import JOINER
from dist_s2s.text.vocabulary import SPECIALS

EXACT, NORMALIZED, OTHER_CASE, NOT_FOUND = range(4)  # how a token was found; a lower number is better
_HOW = {NORMALIZED: "normalized", OTHER_CASE: "in another case"}
_MISSING_SHOWN = 10


class Matches(NamedTuple):
    """Words of a file that are tokens of a vocabulary, one entry for each of both; int64 arrays [N].

    Attributes:
        words: the words, by their places in what was matched, ascending.
        ids: the tokens.
        kinds: how each was found: EXACT, NORMALIZED or OTHER_CASE.
    """

    words: NDArray[np.int64]
    ids: NDArray[np.int64]
    kinds: NDArray[np.int64]


class Coverage:
    """What a vector file has of a vocabulary.

    Args:
        tokens: the vocabulary, in id order.

    Attributes:
        num_words: words of the file.
        found: how each token was found, or NOT_FOUND; int8 [tokens].
        num_repeated: words that are wanted and occur more than once. The first of each counts.
        repeated: such a word and the number of its record, if there is one.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self.num_words = 0
        self.found = np.full(len(tokens), NOT_FOUND, np.int8)
        self.num_repeated = 0
        self.repeated: tuple[str, int] | None = None

    def take(self, matches: Matches) -> NDArray[np.bool_]:
        """Let the next matches count, in the order of the file; ``words`` are the numbers of their records.

        Returns:
            Which of them are better than all before them; bool [N].
        """
        _, ids, kinds = matches
        order = np.lexsort((kinds, ids))  # keeps the order of equals
        is_best = np.diff(ids[order], prepend=-1) != 0
        best = order[is_best]
        best = best[kinds[best] < self.found[ids[best]]]
        self.found[ids[best]] = kinds[best]
        counts = np.zeros(len(ids), np.bool_)
        counts[best] = True
        self._note_repeated(matches, ~counts & (kinds == EXACT))
        return counts

    @property
    def num_found(self) -> int:
        """Tokens that a word was found for."""
        return int((self.found != NOT_FOUND).sum())

    @property
    def missing(self) -> list[str]:
        """The tokens that were not found, the most frequent first, without the special ones."""
        missing = np.flatnonzero(self.found == NOT_FOUND).tolist()
        return [self._tokens[index] for index in missing if index >= len(SPECIALS)]

    def lines(self, place: Callable[[int], str]) -> list[str]:
        """Return the report, a line for each thing to know; ``place`` tells where a record is."""
        counts = [(int((self.found == kind).sum()), how) for kind, how in _HOW.items()]
        num_tokens = len(self._tokens) - len(SPECIALS)
        share = self.num_found / max(1, num_tokens)
        text = (
            f"{self.num_found:,} of {num_tokens:,} tokens ({share:.1%}) are among its {counted(self.num_words, 'word')}"
        )
        others = " and ".join(f"{count:,} {how}" for count, how in counts if count)
        lines = [f"{text}, {others}" if others else text]
        if missing := self.missing:
            lines.append(f"missing, the most frequent first: {' '.join(missing[:_MISSING_SHOWN])}")
        if self.repeated:
            word, number = self.repeated
            lines.append(
                f"{counted(self.num_repeated, 'word occurs', 'words occur')} again, such as {word!r} in "
                f"{place(number)}; the first one counts"
            )
        return lines

    def _note_repeated(self, matches: Matches, again: NDArray[np.bool_]) -> None:
        numbers = np.unique(matches.words[again])  # a word may stand for several tokens
        self.num_repeated += len(numbers)
        if len(numbers) and self.repeated is None:
            first = int(np.flatnonzero(again)[0])
            self.repeated = _word_of(self._tokens[matches.ids[first]]), int(matches.words[first])


class Matcher:
    """Finds the tokens that a word stands for: the same word, else one that differs in its normal form or its case.

    What tokenizers put on a token to say where it touches others is no part of the word.

    Args:
        tokens: a vocabulary, in id order.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._words = [_word_of(token) for token in tokens]
        ids = range(len(SPECIALS), len(tokens))
        self._exact = dict(zip((self._words[index] for index in ids), ids, strict=True))
        self._others: dict[str, list[int]] = {}  # where a word stands for more than that token
        if len(self._exact) < len(ids):
            for index in ids:
                if (last := self._exact[self._words[index]]) != index:
                    self._others.setdefault(self._words[last], []).append(index)

    def match(self, words: Iterable[bytes]) -> Matches:
        """Return the tokens that each word stands for, in the order of the words."""
        texts = [word.decode("utf-8", "replace") for word in words]
        found: list[tuple[int, int, int]] = []
        for number, index in enumerate(map(self._exact.get, texts)):
            text = texts[number]
            if index is not None:
                found.append((number, index, EXACT))
                if text in self._others:
                    found.extend((number, other, EXACT) for other in self._others[text])
            elif similar := self._folded.get(_fold(text)):
                found.extend((number, other, self._difference(text, other)) for other in similar)
        return Matches(*np.array(found, np.int64).reshape(-1, 3).T)

    @cached_property
    def _folded(self) -> dict[str, list[int]]:
        folded: dict[str, list[int]] = {}
        for index, word in enumerate(self._words[len(SPECIALS) :], start=len(SPECIALS)):
            folded.setdefault(_fold(word), []).append(index)
        return folded

    def _difference(self, text: str, index: int) -> int:
        return NORMALIZED if _normal(text) == _normal(self._words[index]) else OTHER_CASE


def _word_of(token: str) -> str:
    return token.strip(JOINER).removeprefix(SPACE) or token


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else _normal(_normal(text).casefold())
