"""How good translations are: precision at 1, 5 and 10, and the mean reciprocal rank, with intervals and with chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AT = (1, 5, 10)
NAMES = (*(f"P@{k}" for k in AT), "MRR")
_RESAMPLES = 1000
_LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """A share of 1, and the 95 % interval of the bootstrap over words."""

    value: float
    low: float
    high: float


def scores(ranks: Sequence[int], seed: int) -> dict[str, Score]:
    """Return all scores of the ranks that right translations have.

    Args:
        ranks: of each word the best rank of its translations, from 1 on; at least one.
        seed: of the bootstrap, which draws the words anew 1,000 times and takes percentiles (Efron 1979).
    """
    each = _of_words(np.asarray(ranks, dtype=np.float64))
    generator = np.random.default_rng(seed)
    means = np.array([each[generator.integers(0, len(each), len(each))].mean(0) for _ in range(_RESAMPLES)])
    low, high = np.quantile(means, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2), axis=0)
    return {name: Score(*map(float, values)) for name, *values in zip(NAMES, each.mean(0), low, high, strict=True)}


def chance(translations: Sequence[int], candidates: int) -> dict[str, float]:
    """Return the scores to expect if candidates came in a random order.

    Args:
        translations: how many each word has.
        candidates: how many words can be translations.
    """
    expected = {count: _chance(count, candidates) for count in set(translations)}
    found = np.mean([expected[count] for count in translations], axis=0)
    return dict(zip(NAMES, found.tolist(), strict=True))


def _chance(translations: int, candidates: int) -> NDArray[np.float64]:
    """Return the mean scores of a word, by how likely it is that the best of its translations has each rank."""
    before = np.arange(candidates - translations + 1, dtype=np.float64)
    later = np.cumprod((candidates - translations - before) / (candidates - before))  # it comes after rank r
    is_at = -np.diff(later, prepend=1.0)
    return np.asarray(is_at @ _of_words(before + 1))


def _of_words(ranks: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.stack([*(ranks <= k for k in AT), 1 / ranks], axis=1)
