"""Which rows ranks ask for: expected numbers of distinct ids, for tables of any size at once.

A batch of N independent ids contains id i with the probability 1 - (1 - p_i)^N, so it has sum_i 1 - (1 - p_i)^N
distinct ones. Frequent ids are taken one by one, the others in buckets so narrow that their ids hardly differ in p.
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

    0 is uniform; 1 log-uniform, which is Zipf's law. It is a continuous power law on [1, num_ids + 1], rounded down.
    """

    num_ids: int
    skew: float

    def below(self, ids: Floats) -> Floats:
        """The probability that an id is less than each of ``ids``, which are within [0, num_ids]."""
        logs, power = np.log(ids + 1), 1 - self.skew
        end = np.log(self.num_ids + 1)
        if abs(power) < 1e-9:
            return np.asarray(logs / end)
        return np.asarray(np.expm1(power * logs) / np.expm1(power * end))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` ids, int64."""
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        end, power = self.num_ids + 1.0, 1 - self.skew
        value = end**uniform if abs(power) < 1e-9 else (1 + uniform * (end**power - 1)) ** (1 / power)
        return (value.long() - 1).clamp_(0, self.num_ids - 1)


@dataclass(frozen=True)
class Traffic:
    """What W ranks, with N ids each of the same distribution, are expected to ask of each owner.

    asked: float64 [W], how many rows one rank asks of each owner. Their sum is U, the distinct ids of a rank.
    touched: float64 [W], how many distinct rows all ranks together ask of each owner: its M.
    fresh: float64 [W], how many of these they have not asked for in the step before.
    fresh_of_rank: how many rows one rank asks for that no rank has asked for in the step before.
    """

    asked: Floats
    touched: Floats
    fresh: Floats
    fresh_of_rank: float

    @property
    def distinct(self) -> float:
        """U, the distinct ids of one rank."""
        return float(self.asked.sum())

    @property
    def requests(self) -> Floats:
        """R of each owner, [W]: what all ranks together ask of it, a row once for each rank."""
        return self.asked * len(self.asked)


def expected_traffic(distribution: IdDistribution, ids: int, partition: RowPartition) -> Traffic:
    """What ranks with ``ids`` ids each ask of the owners of ``partition``, which is of the distribution's ids."""
    edges = _bucket_edges(partition)
    width = np.diff(edges)
    probability = np.diff(distribution.below(edges)) / width
    with np.errstate(divide="ignore"):  # an id that always comes
        log_missing = np.log1p(-np.minimum(probability, 1.0))

    def owners(draws: int) -> Floats:
        """Of each the number of rows that so many ids name."""
        return _by_owner(-np.expm1(log_missing * draws) * width, edges[:-1], partition)

    of_all = ids * partition.num_shards
    asked, touched = owners(ids), owners(of_all)
    return Traffic(
        asked, touched, owners(2 * of_all) - touched, fresh_of_rank=float((owners(of_all + ids) - touched).sum())
    )


def _bucket_edges(partition: RowPartition) -> Floats:
    """Ids at which buckets begin, and the end of the last; with a contiguous layout no bucket has two owners."""
    num_ids = partition.num_rows
    singles = np.arange(min(num_ids, _TAKEN_SINGLY) + 1, dtype=np.float64)
    wide = np.geomspace(singles[-1], num_ids, _BUCKETS).round()
    return np.unique(np.concatenate((singles, wide, _offsets(partition), [float(num_ids)])))


def _by_owner(amounts: Floats, first_ids: Floats, partition: RowPartition) -> Floats:
    """The sums of the buckets' amounts over owners, [W]."""
    shards = partition.num_shards
    if partition.layout == "contiguous":
        owners = np.searchsorted(_offsets(partition), first_ids, side="right") - 1
        return _sums(owners, amounts, shards)
    singly = first_ids < _TAKEN_SINGLY
    owners = first_ids[singly].astype(np.int64) % shards
    return _sums(owners, amounts[singly], shards) + float(amounts[~singly].sum()) / shards


def _sums(owners: NDArray[np.int64], amounts: Floats, shards: int) -> Floats:
    return np.asarray(np.bincount(owners, amounts, minlength=shards), dtype=np.float64)


def _offsets(partition: RowPartition) -> Floats:
    return np.array([partition.offset(owner) for owner in range(partition.num_shards)], dtype=np.float64)
