"""Which target tokens are likely translations of each source token: IBM model 1 of a corpus of token ids.

Brown et al. 1993. Every target token of a sentence has one source token as its origin, and t(target | source) is what a
few rounds of expectation and maximisation make of the question which. The source's end token stands for no word: it is
in every sentence, and so becomes the origin of what has none.

    pairs of tokens      (s, t) for each source token and each target token of a sentence; with itself, each position
    entries              the different (s, t) of the whole corpus, in the order of s and t
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_s2s.text.corpus import Corpus, Example
from dist_s2s.text.ragged import positions
from dist_s2s.text.vocabulary import EOS

MOST_PAIRS = 1 << 25  # of tokens, which take 30 bytes each at most
_PAIRS_AT_A_TIME = 1 << 21
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LexicalTable:
    """How often tokens are expected to come of each other, for the pairs of tokens that a corpus has.

    Attributes:
        sources, targets: ids of each entry, int64 [M], in the order of source and target.
        counts: float64 [M]; t(target | source) is that of the entry, divided by the sum of its source's entries. The
            sum of a target's entries is how often the corpus has it.
    """

    sources: Ints
    targets: Ints
    counts: Floats

    def without_targets(self, ids: Sequence[int]) -> "LexicalTable":
        """Return the entries of other target tokens."""
        kept = ~np.isin(self.targets, ids)
        return LexicalTable(self.sources[kept], self.targets[kept], self.counts[kept])

    def most_frequent(self, count: int) -> Ints:
        """Return the most frequent target tokens; the lower id first of equal ones."""
        totals = np.bincount(self.targets, self.counts).round(3)  # the sum of shares, which is a whole number
        return np.argsort(-totals, kind="stable")[: min(count, np.count_nonzero(totals))]

    def likeliest(self, count: int, num_sources: int) -> tuple[Ints, Ints]:
        """Return the ``count`` likeliest target tokens of each source token; the lower id first of equal ones.

        Returns:
            Where each source token's end in the ids, int64 [num_sources + 1], from 0 on; and the ids, int64.
        """
        order = np.lexsort((-self.counts, self.sources))
        sources = self.sources[order]
        begins = np.searchsorted(sources, np.arange(num_sources + 1))
        kept = np.arange(len(sources)) - begins[sources] < count
        ends = np.concatenate(([0], np.cumsum(np.minimum(np.diff(begins), count))))
        return ends, self.targets[order][kept]


@dataclass(frozen=True)
class _Chunk:
    """The pairs of tokens of some sentences, for each target position one for each source position.

    Attributes:
        entries: those of these sentences, int32 [U].
        places: of each pair among them, int32 [P].
        begins: of each target position among the pairs, int64 [T].
    """

    entries: NDArray[np.int32]
    places: NDArray[np.int32]
    begins: Ints

    def expected(self, probabilities: Floats) -> Floats:
        """Return how often each of ``entries`` is expected to be an origin and what comes of it, float64 [U]."""
        of_pairs = probabilities[self.entries][self.places]
        sums = np.add.reduceat(of_pairs, self.begins)
        of_pairs /= np.repeat(sums, np.diff(self.begins, append=len(of_pairs)))
        return np.bincount(self.places, of_pairs, minlength=len(self.entries)).astype(np.float64, copy=False)


def learn_table(examples: Iterable[Example], rounds: int) -> LexicalTable:
    """Learn t(target | source) from examples, which must have a token on both sides, from equal chances on.

    Time and memory go by the pairs of tokens: choose examples by ``choose_examples``.
    """
    width = 1 << 32
    found = [_pairs(some, width) for some in _in_chunks(examples)]
    keys = np.unique(np.concatenate([keys for keys, _, _ in found]))
    chunks = [_Chunk(np.searchsorted(keys, some).astype(np.int32), places, begins) for some, places, begins in found]
    del found
    sources, targets = keys // width, keys % width
    counts = np.ones(len(keys))
    for number in range(rounds):
        probabilities = counts / np.bincount(sources, counts)[sources] if number else counts
        counts = np.zeros(len(keys))
        for chunk in chunks:
            counts[chunk.entries] += chunk.expected(probabilities)
    return LexicalTable(sources, targets, counts)


def choose_examples(corpora: Sequence[Corpus], most_pairs: int = MOST_PAIRS) -> list[Ints]:
    """Return the numbers of the examples of each corpus to learn from: all, or evenly spaced ones of too many."""
    sizes = [np.asarray(corpus.lengths, dtype=np.int64) for corpus in corpora]
    pairs = [int(((size[:, 0] + 1) * size[:, 1]).sum()) for size in sizes]
    share = min(1.0, most_pairs / max(1, sum(pairs)))
    counts = [int(len(corpus) * share) for corpus in corpora]
    return [np.arange(some) * len(corpus) // max(1, some) for some, corpus in zip(counts, corpora, strict=True)]


def _in_chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    some, size = list[Example](), 0
    for example in examples:
        some.append(example)
        size += (len(example.source) + 1) * len(example.target)
        if size >= _PAIRS_AT_A_TIME:
            yield some
            some, size = [], 0
    if some:
        yield some


def _pairs(examples: Sequence[Example], width: int) -> tuple[Ints, NDArray[np.int32], Ints]:
    """Return the keys source · width + target that occur, each pair's place among them, and see ``_Chunk.begins``."""
    source_sizes = np.array([len(example.source) + 1 for example in examples])
    target_sizes = np.array([len(example.target) for example in examples])
    sources = np.array([token for example in examples for token in (*example.source, EOS)])
    targets = np.array([token for example in examples for token in example.target])
    sizes = np.repeat(source_sizes, target_sizes)  # pairs of each target position
    first = np.repeat(np.cumsum(source_sizes) - source_sizes, target_sizes)  # of its sentence's source tokens
    of_pairs = sources[positions(first, sizes)] * width + np.repeat(targets, sizes)
    keys, places = np.unique(of_pairs, return_inverse=True)
    return keys, places.astype(np.int32), np.cumsum(sizes) - sizes
