"""A vocabulary whose words come and go with what a stream of text is about, in a fixed number of ids."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, compress, repeat
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dist_s2s import UserError
from dist_s2s.text.counted_words import CountedWords, Settings
from dist_s2s.text.least_frequent import Ints, LeastFrequent
from dist_s2s.text.lines import read_lines
from dist_s2s.text.vocabulary import SPECIALS, UNK, Vocabulary

Change = tuple[int, str | None, str]  # an id, its old word if it had one, and its new word


class DynamicVocabulary(Vocabulary):
    """At most ``max_size`` tokens, of which the least frequent give way to words that have become more frequent.

    `update` counts words, then admits them. A word is admitted that has been counted `min_frequency` times: to an id
    that is free, or in place of the least frequent word, if its count is higher (the admission of TinyLFU, Einziger,
    Friedman and Manes 2017, arXiv:1512.00727). Special tokens never give way. A word keeps its id until it does. Words
    that are admitted together come in order of falling counts, equally frequent ones in string order; the least
    frequent word is that of the lowest (count, id). So the outcome depends on the updates alone, not on how the words
    of one are ordered.

    Words without an id are candidates. Their counts take bounded memory by the rule of Misra and Gries 1982, "Finding
    repeated elements", in the form of Agarwal et al. 2012, "Mergeable summaries": when there are more than
    2 · `max_size` candidates, the count of the one at place `max_size` + 1 is subtracted from all, and those that are
    left with nothing are forgotten. A candidate's count is thus too low by at most a share of 1 / (`max_size` + 1) of
    all words counted as candidates, and never too high. A word that has given way goes on as a candidate.

    An update of n words takes O(n log max_size) amortized; see `LeastFrequent`.

    Args:
        max_size: number of ids, specials included. Tables need that many rows from the start.
        min_frequency: how often a word must be counted before it is admitted.
        halve_every: all counts are halved after an update that brings the words counted to this number, and counting
            to it begins anew, so that what a stream was about long ago is forgotten (TinyLFU's reset); None for never.

    Attributes:
        tokens: those that have an id, in id order.
        counts: of each id, int64 [max_size]; 0 for special tokens and free ids.

    Raises:
        ValueError: a number is too small.
    """

    def __init__(self, max_size: int, min_frequency: int = 1, halve_every: int | None = None) -> None:
        super().__init__(SPECIALS)
        if max_size < len(SPECIALS):
            raise ValueError(f"max_size must be at least {len(SPECIALS)} (the special tokens), got {max_size}")
        if min_frequency < 1 or (halve_every is not None and halve_every < 1):
            raise ValueError(f"min_frequency and halve_every must be at least 1, got {min_frequency} and {halve_every}")
        self.max_size, self.min_frequency, self.halve_every = max_size, min_frequency, halve_every
        self.tokens: list[str] = list(SPECIALS)
        self.counts: Ints = np.zeros(max_size, dtype=np.int64)
        # One dictionary for both, because looking a word up in so large a one is what an update spends its time on:
        # the id of a word that has one, the negative count of a candidate.
        self._ids: dict[str, int] = {}
        self._counted = 0  # words since the counts were halved
        self._least = LeastFrequent(self.counts)

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        max_size: int | None = None,
        min_frequency: int = 1,
        tags: Sequence[str] = (),
    ) -> Self:
        """Count the tokens of `sentences` and admit them.

        Raises:
            ValueError: as the constructor, `max_size` is None, or there are tags.
        """
        if max_size is None or tags:
            raise ValueError("a dynamic vocabulary needs max_size, and has no tags")
        vocabulary = cls(max_size, min_frequency)
        vocabulary.update(Counter(chain.from_iterable(sentences)))
        return vocabulary

    @property
    def num_ids(self) -> int:
        """How many rows a table of this vocabulary needs: `max_size`."""
        return self.max_size

    @property
    def num_candidates(self) -> int:
        """How many words without an id are counted."""
        return len(self._ids) - (len(self) - len(SPECIALS))

    def update(self, counts: Mapping[str, int]) -> list[Change]:
        """Count words, admit those that have become frequent enough, and return the ids that have got another word.

        Args:
            counts: how often each word has occurred since the last update. Special tokens' strings are left out.

        Raises:
            ValueError: a word that is to be admitted is empty or contains whitespace; nothing is admitted.
        """
        if not counts.keys().isdisjoint(SPECIALS):
            counts = {word: count for word, count in counts.items() if word not in SPECIALS}
        numbers = np.fromiter(counts.values(), np.int64, len(counts))
        found = np.fromiter(map(self._ids.get, counts, repeat(0)), np.int64, len(counts))
        has_id = found > 0
        self.counts[found[has_id]] += numbers[has_id]
        words = [word for word, known in zip(counts, has_id.tolist(), strict=True) if not known]
        totals = numbers[~has_id] - found[~has_id]
        is_promising = totals >= self._least_to_admit()
        changes = self._admit(*_by_falling_count(_pick(words, is_promising), totals[is_promising]))
        self._set_candidates(_pick(words, ~is_promising), totals[~is_promising])
        self._forget_rare_candidates()
        self._counted += int(numbers.sum())
        if self.halve_every is not None and self._counted >= self.halve_every:
            self._halve()
        return changes

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token, `UNK` for those that have none. Adds neither SOS nor EOS."""
        ids = self._ids
        return [index if (index := ids.get(token, UNK)) > 0 else UNK for token in tokens]

    def __contains__(self, token: object) -> bool:
        return self._ids.get(token, 0) > 0  # type: ignore[call-overload, no-any-return]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of `ids` as `Vocabulary.decode`; an id that no word has yet becomes `<unk>`."""
        used = len(self)
        return super().decode(UNK if used <= index < self.max_size else index for index in ids)

    def take_over(self, other: Self) -> None:
        """Become equal to another vocabulary of the same `max_size`, whose parts are then shared."""
        if other.max_size != self.max_size:
            raise ValueError(f"max_size is {self.max_size}, but that of the other vocabulary {other.max_size}")
        vars(self).update(vars(other))

    def to_text(self) -> str:
        """Return what `load` reads; see `CountedWords`."""
        settings = Settings(self.max_size, self.min_frequency, self.halve_every, self._counted)
        tokens = list(zip(self.tokens, self.counts.tolist(), strict=False))  # counts has free ids too
        return CountedWords(
            settings, tokens, sorted((w, -value) for w, value in self._ids.items() if value < 0)
        ).to_text()

    @classmethod
    def load(cls, path: str | os.PathLike[str], tags: Sequence[str] = ()) -> Self:
        """Read a UTF-8 file that holds what `to_text` returns. Updates then go on as if there had been no file.

        Raises:
            UserError: the file cannot be read as UTF-8 text, or is no dynamic vocabulary; the line is named. Or there
                are tags, which it cannot have.
        """
        if tags:
            raise UserError(f"{path} is a dynamic vocabulary, which has no tags")
        lines = read_lines(path)
        try:
            return cls._from(CountedWords.parse(lines))
        except ValueError as error:
            raise UserError(f"{path} is not a dynamic vocabulary: {error}") from None

    @classmethod
    def _from(cls, words: CountedWords) -> Self:
        settings = words.settings
        vocabulary = cls(settings.max_size, settings.min_frequency, settings.halve_every)
        vocabulary._counted = settings.counted
        vocabulary.tokens = [token for token, _ in words.tokens]
        size = len(vocabulary)
        vocabulary.counts[:size] = [count for _, count in words.tokens]
        vocabulary._ids = {word: -count for word, count in words.candidates}
        vocabulary._ids |= {token: index for index, token in enumerate(vocabulary.tokens) if index >= len(SPECIALS)}
        vocabulary._least.restart(np.arange(len(SPECIALS), size))
        return vocabulary

    def _least_to_admit(self) -> int:
        """Return a lower bound of the counts that a word needs to be admitted now."""
        if len(self) < self.max_size or self.max_size == len(SPECIALS):
            return self.min_frequency
        return max(self.min_frequency, self._least.lowest_count() + 1)

    def _admit(self, words: list[str], totals: Ints) -> list[Change]:
        """Give words, in order of falling counts, free ids or those of rarer words; the rest become candidates."""
        if " ".join(words).split() != words:
            wrong = next(word for word in words if word.split() != [word])
            raise ValueError(f"{wrong!r} is no word: a word is not empty and has no whitespace")
        free = np.arange(len(self), min(self.max_size, len(self) + len(words)))
        victims = self._least.take(len(words) - len(free))
        rivals = totals[len(free) : len(free) + len(victims)]
        # Counts of rivals fall and those of victims rise, so that from the first that stays on all of them do.
        give_way = int(np.count_nonzero(rivals > self.counts[victims]))
        self._least.add(victims[give_way:])
        victims = victims[:give_way]
        ids = np.concatenate((free, victims))
        places, admitted = ids.tolist(), words[: len(ids)]
        olds = [self.tokens[index] for index in places[len(free) :]]
        self._set_candidates(olds, self.counts[victims])
        self._set_candidates(words[len(ids) :], totals[len(ids) :])
        self.counts[ids] = totals[: len(ids)]
        self._least.add(ids)
        self._ids.update(zip(admitted, places, strict=True))
        self.tokens.extend(admitted[: len(free)])
        for index, word in zip(places[len(free) :], admitted[len(free) :], strict=True):
            self.tokens[index] = word
        return list(zip(places, chain(repeat(None, len(free)), olds), admitted, strict=True))

    def _set_candidates(self, words: list[str], totals: Ints) -> None:
        self._ids.update(zip(words, (-totals).tolist(), strict=True))

    def _forget_rare_candidates(self) -> None:
        if self.num_candidates <= 2 * self.max_size:
            return
        values = np.fromiter(self._ids.values(), np.int64, len(self._ids))
        counts = -values[values <= 0]
        place = len(counts) - 1 - self.max_size  # of that count among all, ascending
        excess = int(np.partition(counts, place)[place])
        self._ids = {
            word: value if value > 0 else value + excess
            for word, value in self._ids.items()
            if value > 0 or value < -excess
        }

    def _halve(self) -> None:
        self._counted = 0
        self.counts >>= 1
        self._ids = {
            word: value if value > 0 else -(-value >> 1) for word, value in self._ids.items() if value > 0 or value < -1
        }
        self._least.restart(np.arange(len(SPECIALS), len(self)))


def _by_falling_count(words: list[str], totals: Ints) -> tuple[list[str], Ints]:
    """Sort words by falling count, equally frequent ones by string, for which sorting pairs takes longer."""
    by_string = np.array(sorted(range(len(words)), key=words.__getitem__), dtype=np.int64)
    order = by_string[np.argsort(-totals[by_string], kind="stable")]
    return [words[place] for place in order.tolist()], totals[order]


def _pick(words: list[str], which: NDArray[np.bool_]) -> list[str]:
    return list(compress(words, which.tolist()))


def load_vocabulary(path: str | os.PathLike[str], tags: Sequence[str] = ()) -> Vocabulary:
    """Read a vocabulary's file, or a dynamic one's, which begins with its settings.

    Raises:
        UserError: as `Vocabulary.load`.
    """
    try:
        with open(path, "rb") as file:
            is_dynamic = file.read(1) == b"{"
    except OSError:
        is_dynamic = False  # which load tells in its own words
    return DynamicVocabulary.load(path, tags) if is_dynamic else Vocabulary.load(path, tags)
