"""Finding the mapping: refinement of one that pairs gave, and self-learning without any pair."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s.analysis.alignment.dictionary import Pairs
from dist_s2s.analysis.alignment.mapping import map_rows, procrustes
from dist_s2s.analysis.alignment.normalizing import normalize
from dist_s2s.analysis.alignment.retrieval import Sample, Translations
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.analysis.rows import TableRows

_STRUCTURE_WORDS = 4000  # as in VecMap: each is described by its similarity to all of them
_STRUCTURE_ROWS = 512  # at a time
_FIRST_SHARE, _FACTOR, _THRESHOLD = 0.1, 2, 1e-6  # as in VecMap


@dataclass(frozen=True)
class SelfLearning:
    """How a mapping is learnt without a dictionary.

    Attributes:
        words: of each side that take part, the most frequent.
        patience: iterations without a better mapping before more pairs may be chosen, or the learning ends.
        seed: of the samples.
    """

    words: int
    patience: int = 50
    seed: int = 0


def identical_words(source: WordVectors, target: WordVectors) -> Pairs:
    """Return the pairs of words that are written alike (Artetxe et al. 2017; local)."""
    return [(index, target.ids[word]) for word, index in source.ids.items() if word in target.ids]


def frequency_ranks(source: WordVectors, target: WordVectors, words: int) -> Pairs:
    """Return the first words of both sides, the second ones, and so on: pairs of one frequency rank (local)."""
    count = min(words, len(source.words) - source.reserved, len(target.words) - target.reserved)
    return [(source.reserved + number, target.reserved + number) for number in range(count)]


def similar_structure(source: WordVectors, target: WordVectors) -> Pairs:
    """Return pairs of words whose similarities to the words of their own language are distributed alike (collective).

    The start of VecMap (Artetxe et al. 2018): rows of the square root of XXᵀ are sorted, normalized as vectors are, and
    compared by CSLS both ways. Each rank holds its share of these, which have a number for each of 4,000 words.

    Args:
        source, target: normalized.
    """
    count = min(_STRUCTURE_WORDS, len(source.words) - source.reserved, len(target.words) - target.reserved)
    sides = [_similarities(side.rows, torch.arange(side.reserved, side.reserved + count)) for side in (source, target)]
    return [(source.reserved + a, target.reserved + b) for a, b in _union(Translations(*sides))]


def refine(source: WordVectors, target: WordVectors, mapping: Tensor, pairs: Pairs, rounds: int, words: int) -> Tensor:
    """Return a mapping that has been learnt again from pairs and its own translations (collective).

    Each round takes words that are each other's best translation by CSLS (Conneau et al. 2018), and the given pairs.

    Args:
        pairs: which stay; may be none.
        words: of each side that take part, the most frequent.
    """
    some, others = (frequent(side, words) for side in (source, target))
    for _ in range(rounds):
        found, _ = Translations(map_rows(some, mapping), others).mutual()
        chosen = list(dict.fromkeys([*pairs, *found]))
        if chosen:
            mapping = procrustes(source.rows, target.rows, chosen)
    return mapping


def self_learn(
    source: WordVectors, target: WordVectors, start: Pairs, settings: SelfLearning, say: Callable[[str], None]
) -> Tensor:
    """Return the mapping that self-learning comes to from some pairs, many of which may be wrong (collective).

    In turn, pairs give a mapping, and its translations both ways give new pairs. These are chosen among a random tenth
    of all possible ones, which is doubled whenever the mean similarity has not grown for some iterations: stochastic
    dictionary induction (Artetxe et al. 2018). With all of them it ends when that has not grown, or pairs are the same.

    Args:
        start: at least one.
        say: is told how it goes.
    """
    some, others = (frequent(side, settings.words) for side in (source, target))
    pairs, share, best, waited, iteration = start, _FIRST_SHARE, -torch.inf, 0, 0
    while True:
        mapping = procrustes(source.rows, target.rows, pairs)
        translations = Translations(map_rows(some, mapping), others)
        waited = 0 if translations.mean_similarity >= best + _THRESHOLD else waited + 1
        best = max(best, translations.mean_similarity)
        if waited > settings.patience:
            say(f"iteration {iteration}, {share:.0%} of all pairs: mean similarity {best:.4f}")
            if share == 1:
                return mapping
            share, waited = min(1.0, share * _FACTOR), 0
        iteration += 1
        found = _union(translations, None if share == 1 else Sample(share, settings.seed + iteration))
        if found == pairs or not found:
            say(f"iteration {iteration}: the same pairs again, mean similarity {best:.4f}")
            return mapping
        pairs = found


def _union(translations: Translations, sample: Sample | None = None) -> Pairs:
    (targets, _), sources = translations.best_targets(sample), translations.best_sources(sample)
    there = ((source, target) for source, target in enumerate(targets.tolist()) if target >= 0)
    back = ((source, target) for target, source in enumerate(sources.tolist()) if source >= 0)
    return [*there, *back]  # a pair that is found both ways counts twice


def frequent(side: WordVectors, words: int) -> TableRows:
    """Return the rows of the most frequent words, and reserved ones (local)."""
    rows, count = side.rows, min(side.reserved + words, side.rows.num_rows)

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for ids, block in rows.blocks():
            held = int((ids < count).sum())
            if held == 0:
                return
            yield ids[:held], block[:held]

    return TableRows(count, rows.dim, rows.group, blocks)


def _similarities(rows: TableRows, ids: Tensor) -> TableRows:
    """Return a row for each id: its similarities to all of them, sorted and normalized (collective)."""
    u, s, _ = torch.linalg.svd(rows.fetch(ids), full_matrices=False)
    rank, size = rows.group.rank, rows.group.size
    mine = ((u * s)[rank::size] @ u.T).sort(dim=1).values

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(mine), _STRUCTURE_ROWS):
            part = mine[start : start + _STRUCTURE_ROWS]
            yield torch.arange(start, start + len(part)) * size + rank, part

    found = TableRows(len(ids), len(ids), rows.group, blocks)
    normalize(found)
    return found
