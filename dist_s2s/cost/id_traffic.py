"""Expected numbers of distinct ids, for tables of any size.

A batch of N independent ids contains id i with probability 1 - (1 - p_i)^N, so it has sum_i 1 - (1 - p_i)^N distinct
ones. Frequent ids are taken one by one, the others in buckets so narrow that their ids hardly differ in p.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_s2s.sharded import RowPartition

Floats = NDArray[np.float64]

_TAKEN_SINGLY = 1 << 14  # ids
_BUCKETS = 1 << 12  # of all others, each wider than the last by the same factor


@dataclass(frozen=True)
class IdDistribution:
    """Ids 0 … num_ids - 1, of which id i has a probability of about (i + 1)^-skew, as in a frequency-sorted vocabulary.

    A skew of 0 is uniform, 1 log-uniform (Zipf's law): a continuous power law on [1, num_ids + 1], rounded down.
    """

    num_ids: int
    skew: float

    def below(self, ids: Floats) -> Floats:
        """Return the probability that an id is less than each of ``ids``, which are within [0, num_ids]."""
        logs, power, end = np.log(ids + 1), 1 - self.skew, np.log(self.num_ids + 1)
        return np.asarray(logs / end if abs(power) < 1e-9 else np.expm1(power * logs) / np.expm1(power * end))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` ids, int64."""
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        end, power = self.num_ids + 1.0, 1 - self.skew
        value = end**uniform if abs(power) < 1e-9 else (1 + uniform * (end**power - 1)) ** (1 / power)
        return (value.long() - 1).clamp_(0, self.num_ids - 1)


def expected_rows(skew: float, draws: int, partition: RowPartition) -> Floats:
    """Return how many distinct rows of each owner so many ids name, [owners]."""
    owners, num_ids = partition.num_shards, partition.num_rows
    offsets = np.array([partition.offset(owner) for owner in range(owners)], dtype=np.float64)
    singles = np.arange(min(num_ids, _TAKEN_SINGLY) + 1, dtype=np.float64)
    wide = np.geomspace(singles[-1], num_ids, _BUCKETS).round()
    edges = np.unique(np.concatenate((singles, wide, offsets, [float(num_ids)])))
    width = np.diff(edges)
    probability = np.diff(IdDistribution(num_ids, skew).below(edges)) / width
    with np.errstate(divide="ignore"):  # an id that always comes
        rows = -np.expm1(draws * np.log1p(-np.minimum(probability, 1.0))) * width
    if partition.layout == "contiguous":  # no bucket has two owners
        owner_of_bucket = np.searchsorted(offsets, edges[:-1], side="right") - 1
        return np.bincount(owner_of_bucket, rows, minlength=owners).astype(np.float64)
    count = len(singles) - 1
    dealt = np.bincount(np.arange(count) % owners, rows[:count], minlength=owners).astype(np.float64)
    return dealt + float(rows[count:].sum()) / owners
