"""Many texts cut into tokens at once: a word that occurs in them many times is cut once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Self, TypeVar

import numpy as np

from dist_s2s.text.ragged import positions

Token = TypeVar("Token", str, int)
_END = None  # of a text, among its words


@dataclass(frozen=True)
class CutTexts(Generic[Token]):
    """The tokens of texts, by their distinct words.

    Attributes:
        tokens: of each distinct word.
        words: which of them stand in the texts, one text after the other: int32.
        ends: where each text ends among `words`.
    """

    tokens: list[list[Token]]
    words: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(
        cls, texts: Iterable[str], cuts_at_spaces: bool, cut_all: Callable[[list[str]], Iterable[list[Token]]]
    ) -> Self:
        """Cut texts.

        Args:
            texts: sentences.
            cuts_at_spaces: the tokens of a text are those of what stands between its spaces; otherwise a text counts
                as one word.
            cut_all: returns the tokens of each of some words.
        """
        numbers: defaultdict[str | None, int] = defaultdict()
        numbers.default_factory = numbers.__len__
        marks = numbers[_END]
        split = (lambda text: [*text.split(), _END]) if cuts_at_spaces else (lambda text: [text, _END])
        found = np.fromiter(map(numbers.__getitem__, chain.from_iterable(map(split, texts))), dtype=np.int32)
        is_end = found == marks
        ends = np.flatnonzero(is_end)
        distinct = [word for word in numbers if word is not None]
        return cls(list(cut_all(distinct)), found[~is_end] - 1, ends - np.arange(len(ends)))

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each text: int64."""
        before = np.concatenate([[0], np.cumsum(self._sizes()[self.words])])
        return np.diff(before[self.ends], prepend=0)

    def counts(self, chosen: np.ndarray | None = None) -> Counter[Token]:
        """Return how often each token occurs in the chosen texts, bool [texts]; None for all."""
        words = self.words
        if chosen is not None:
            words = words[np.repeat(chosen, np.diff(self.ends, prepend=0))]
        counts: Counter[Token] = Counter()
        for tokens, count in zip(self.tokens, np.bincount(words, minlength=len(self.tokens)).tolist(), strict=True):
            if count:
                for token in tokens:
                    counts[token] += count
        return counts

    def flat(self) -> np.ndarray:
        """Return all texts' tokens one after the other, if they are numbers: int64."""
        tokens = np.fromiter(chain.from_iterable(self.tokens), dtype=np.int64)
        sizes = self._sizes()
        begins = np.cumsum(sizes) - sizes
        flat: np.ndarray = tokens[positions(begins[self.words], sizes[self.words])]
        return flat

    def _sizes(self) -> np.ndarray:
        return np.fromiter(map(len, self.tokens), dtype=np.int64, count=len(self.tokens))
