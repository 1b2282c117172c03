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
from dist_s2s.text.least_frequent import LeastFrequent
from dist_s2s.text.lines import read_lines
from dist_s2s.text.vocabulary import SPECIALS, UNK, Vocabulary
from dist_s2s.text.vocabulary_changes import Changes
from dist_s2s.text.word_slots import Ints, WordSlots


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
        self._words = WordSlots()  # those with an id, and the candidates
        self._slots: Ints = np.zeros(max_size, dtype=np.int64)  # by id
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
        return len(self._words) - (len(self) - len(SPECIALS))

    def update(self, counts: Mapping[str, int]) -> Changes:
        """Count words, admit those that have become frequent enough, and return the ids that have got another word.

        Args:
            counts: how often each word has occurred since the last update. Special tokens' strings are left out.

        Raises:
            ValueError: a word that is to be admitted is empty or contains whitespace; nothing is admitted.
        """
        if not counts.keys().isdisjoint(SPECIALS):
            counts = {word: count for word, count in counts.items() if word not in SPECIALS}
        words, slots = self._words, self._words.find(counts)
        numbers = np.fromiter(counts.values(), np.int64, len(counts))
        totals = numbers + words.counts[slots]
        ids = words.ids[slots]
        has_id, is_new = ids != UNK, slots == 0
        is_promising = ~has_id & (totals >= self._least_to_admit())
        promising = _pick(counts, is_promising)
        _check_words(promising)
        self.counts[ids[has_id]] += numbers[has_id]
        slots[is_new] = words.add(_pick(counts, is_new))
        words.counts[slots[~has_id]] = totals[~has_id]
        changes = self._admit(*self._by_falling_count(promising, slots[is_promising]))
        self._forget_rare_candidates()
        self._counted += int(numbers.sum())
        if self.halve_every is not None and self._counted >= self.halve_every:
            self._halve()
        return changes

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the id of each token, `UNK` for those that have none. Adds neither SOS nor EOS."""
        return self._words.ids_of(tokens)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and self._words.ids_of([token]) != [UNK]

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
        words, are_candidates = self._words, self._words.without_id()
        candidates = zip(
            _pick(words, are_candidates[1:]), words.counts[np.flatnonzero(are_candidates)].tolist(), strict=True
        )
        return CountedWords(settings, tokens, sorted(candidates)).to_text()

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
        ids = np.arange(len(SPECIALS), size)
        vocabulary._slots[ids] = vocabulary._words.add(vocabulary.tokens[len(SPECIALS) :])
        vocabulary._words.ids[vocabulary._slots[ids]] = ids
        candidates = vocabulary._words.add([word for word, _ in words.candidates])
        vocabulary._words.counts[candidates] = [count for _, count in words.candidates]
        vocabulary._least.restart(ids)
        return vocabulary

    def _least_to_admit(self) -> int:
        """Return a lower bound of the counts that a word needs to be admitted now."""
        if len(self) < self.max_size or self.max_size == len(SPECIALS):
            return self.min_frequency
        return max(self.min_frequency, self._least.lowest_count() + 1)

    def _admit(self, words: list[str], slots: Ints) -> Changes:
        """Give candidates, in order of falling counts, free ids or those of rarer words, as far as there are any."""
        all_words, totals = self._words, self._words.counts[slots]
        free = np.arange(len(self), min(self.max_size, len(self) + len(words)))
        victims = self._least.take(len(words) - len(free))
        rivals = totals[len(free) : len(free) + len(victims)]
        # Counts of rivals fall and those of victims rise, so that from the first that stays on all of them do.
        give_way = int(np.count_nonzero(rivals > self.counts[victims]))
        self._least.add(victims[give_way:])
        victims = victims[:give_way]
        ids = np.concatenate((free, victims))
        places, admitted, slots = ids.tolist(), words[: len(ids)], slots[: len(ids)]
        olds = [self.tokens[index] for index in places[len(free) :]]
        all_words.ids[self._slots[victims]], all_words.counts[self._slots[victims]] = UNK, self.counts[victims]
        all_words.ids[slots], all_words.counts[slots], self._slots[ids] = ids, 0, slots
        self.counts[ids] = totals[: len(ids)]
        self._least.add(ids)
        self.tokens.extend(admitted[: len(free)])
        for index, word in zip(places[len(free) :], admitted[len(free) :], strict=True):
            self.tokens[index] = word
        return Changes(places, [*repeat(None, len(free)), *olds], admitted)

    def _by_falling_count(self, words: list[str], slots: Ints) -> tuple[list[str], Ints]:
        """Sort candidates by falling count, equally frequent ones by string, for which sorting pairs takes longer."""
        by_string = np.array(sorted(range(len(words)), key=words.__getitem__), dtype=np.int64)
        order = by_string[np.argsort(-self._words.counts[slots[by_string]], kind="stable")]
        return [words[place] for place in order.tolist()], slots[order]

    def _forget_rare_candidates(self) -> None:
        if self.num_candidates <= 2 * self.max_size:
            return
        words, are_candidates = self._words, self._words.without_id()
        counts = words.counts[: len(are_candidates)]
        of_candidates = counts[are_candidates]
        place = len(of_candidates) - 1 - self.max_size  # of that count among all, ascending
        counts[are_candidates] -= np.partition(of_candidates, place)[place]
        self._keep(~are_candidates | (counts > 0))

    def _halve(self) -> None:
        self._counted = 0
        self.counts >>= 1
        words, are_candidates = self._words, self._words.without_id()
        words.counts >>= 1
        self._keep(~are_candidates | (words.counts[: len(are_candidates)] > 0))
        self._least.restart(np.arange(len(SPECIALS), len(self)))

    def _keep(self, which: NDArray[np.bool_]) -> None:
        self._slots = self._words.keep(which)[self._slots]


def _check_words(words: list[str]) -> None:
    if " ".join(words).split() != words:
        wrong = next(word for word in words if word.split() != [word])
        raise ValueError(f"{wrong!r} is no word: a word is not empty and has no whitespace")


def _pick(words: Iterable[str], which: NDArray[np.bool_]) -> list[str]:
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
