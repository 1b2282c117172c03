"""The sample with the least Bayes risk: the one that is most like the others.

Eikema and Aziz 2020, "Is MAP decoding all you need? The inadequacy of the mode in neural machine translation"
(arXiv:2005.10283): samples, not the likeliest translation, show what a model has learned, and the best decision is the
translation with the highest expected utility under its distribution, which the samples estimate.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dist_s2s.distributed import Ranks
from dist_s2s.translation.search.joining import Translation

Floats = NDArray[np.float64]
_LONGEST_NGRAM, _RECALL_WEIGHT = 6, 2.0**2  # as sacreBLEU's chrF2


def choose_by_risk(translations: Sequence[Translation], ranks: Ranks) -> list[Translation]:
    """Return each with one of its candidates, which are samples, on every rank (collective).

    It is the one with the highest mean utility, sentence chrF, against the other samples; the first of several. Each
    rank looks at its share of the sentences.
    """
    mine = [
        (number, least_risk([candidate.text for candidate in translations[number].n_best]))
        for number in range(ranks.rank, len(translations), ranks.world_size)
    ]
    places = ranks.gather_by_number(mine)
    return [replace(each, n_best=[each.n_best[places[number]]]) for number, each in enumerate(translations)]


def least_risk(samples: Sequence[str]) -> int:
    """Return the place of the first sample with the highest mean utility against the others; of one alone 0."""
    times = Counter(samples)
    texts = list(times)
    if len(texts) == 1:
        return 0
    utilities_DD, times_D = chrf(texts), np.array([times[text] for text in texts], dtype=np.float64)
    sums_D = utilities_DD @ times_D - np.diagonal(utilities_DD)
    return samples.index(texts[int(sums_D.argmax())])


def chrf(texts: Sequence[str]) -> Floats:
    """Return sacreBLEU's sentence chrF, 0 … 100, of each text (row) with each as its reference (column)."""
    size = len(texts)
    precision_DD, recall_DD, orders_DD = (np.zeros((size, size)) for _ in range(3))
    characters = ["".join(text.split()) for text in texts]
    for order in range(1, _LONGEST_NGRAM + 1):
        counts_DG = _counts(characters, order)
        matches_DD = np.array([np.minimum(counts_DG, mine_G).sum(axis=1) for mine_G in counts_DG], dtype=np.float64)
        totals_D = counts_DG.sum(axis=1).astype(np.float64)
        counts_here_DD = (totals_D[:, None] > 0) & (totals_D > 0)
        np.maximum(totals_D, 1, out=totals_D)
        precision_DD += matches_DD / totals_D[:, None]
        recall_DD += matches_DD / totals_D
        orders_DD += counts_here_DD
    np.maximum(orders_DD, 1, out=orders_DD)
    precision_DD /= orders_DD
    recall_DD /= orders_DD
    below_DD = _RECALL_WEIGHT * precision_DD + recall_DD
    return 100 * (1 + _RECALL_WEIGHT) * precision_DD * recall_DD / np.where(below_DD > 0, below_DD, 1)


def _counts(texts: Sequence[str], order: int) -> NDArray[np.int32]:
    """Return how often each text has each n-gram of characters that any has, [texts, n-grams]."""
    numbers: dict[str, int] = {}
    found = [
        [numbers.setdefault(text[at : at + order], len(numbers)) for at in range(len(text) - order + 1)]
        for text in texts
    ]
    counts = np.zeros((len(texts), len(numbers)), dtype=np.int32)
    for row, ids in zip(counts, found, strict=True):
        np.add.at(row, ids, 1)
    return counts
