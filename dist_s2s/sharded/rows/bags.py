"""Rows in bags: from bags to sums, and from their gradients to those of rows; pooled by the owners or by the asker."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dist_s2s.sharded.rows.runs import Runs

Mode = Literal["sum", "mean", "max"]


@dataclass(frozen=True)
class Bags:
    """How a list of N rows is divided into B bags, one after the other.

    Attributes:
        sizes: int64 [B]; a bag may be empty.
        weights: what each row is multiplied by before it is summed, [N]; None for 1.
    """

    sizes: Tensor
    weights: Tensor | None = None

    @cached_property
    def starts(self) -> Tensor:
        """Where in the list each bag begins, int64 [B]."""
        return self.sizes.cumsum(0).sub_(self.sizes)

    @cached_property
    def of_rows(self) -> Tensor:
        """Which bag each row is in, int64 [N]."""
        return torch.repeat_interleave(self.sizes)

    def pool(self, rows: Tensor, values: Tensor, mode: Mode = "sum") -> Tensor:
        """Return the pooled bags, [B, D], zeros for an empty one; differentiable.

        Args:
            rows: int64 [N], the rows of ``values`` that are in the bags.
            values: [any number, D].
        """
        if len(rows) == 0:  # which torch refuses for a table without rows; these zeros belong to the graph all the same
            return values.new_zeros(len(self.sizes), values.shape[1]) + values[:0].sum(0)
        weights = None if self.weights is None else self.weights.to(values.dtype)
        return F.embedding_bag(rows, values, self.starts, mode=mode, per_sample_weights=weights)

    def reduce(self, runs: Runs, gradients: Tensor) -> Tensor:
        """Return the gradients of the U distinct rows, [U, D], from those of the bags' sums, [B, D].

        Args:
            runs: those of the list of rows.
        """
        weights = None if self.weights is None else self.weights.to(gradients.dtype)
        return runs.sums(gradients, self.of_rows, weights)


@dataclass(frozen=True)
class NamedSums:
    """Sums of rows, each of rows of a single owner, ordered by owner: n rows in P sums, none of them empty.

    Attributes:
        positions: int64 [n], those of the rows.
        counts: int64 [n], how often ids named each of them.
        bags: the P sums.
        owners: int64 [P], ascending.
    """

    positions: Tensor
    counts: Tensor
    bags: Bags
    owners: Tensor


class SummedBags:
    """A sum for each pair of a bag and an owner with rows in it, which the owner computes. Not for max.

    ``reduce`` is the dual of ``expand``: its transpose as a linear map.

    Args:
        positions: int64 [N], of the rows in the bags.
        offsets: int64 [number of owners], the position of each owner's first row.
    """

    def __init__(self, positions: Tensor, bags: Bags, mode: Mode, offsets: Tensor) -> None:
        self._positions, self._bags, self._mode, self._offsets = positions, bags, mode, offsets

    @cached_property
    def named(self) -> NamedSums:
        """The P sums."""
        order = self._owners.to(torch.int16).argsort(stable=True)
        weights = None if self._bags.weights is None else self._bags.weights.index_select(0, order)
        owners, bags = self._pairs
        sizes = self._pair_sizes[owners, bags]
        return NamedSums(self._positions.index_select(0, order), torch.ones_like(order), Bags(sizes, weights), owners)

    @property
    def num_sums(self) -> int:
        """How many sums would travel."""
        return len(self._bag_of_sum)

    def read(self, whole: Tensor) -> Tensor:
        """Return the pooled bags, [B, D], from all rows of the table, ordered by position: [num_rows, D]."""
        return self._bags.pool(self._positions, whole, self._mode)

    def expand(self, sums: Tensor) -> Tensor:
        """Return the pooled bags, [B, D], from the P sums, [P, D]."""
        by_bag = Runs.of(self._bag_of_sum)
        pooled = sums.new_zeros(len(self._bags.sizes), sums.shape[1])
        pooled.index_copy_(0, by_bag.distinct, by_bag.sums(sums))
        return pooled.div_(self._divisors) if self._mode == "mean" else pooled

    def reduce(self, gradients: Tensor) -> Tensor:
        """Return the gradients of the P sums, [P, D], from those of the pooled bags, [B, D]."""
        gradients = gradients / self._divisors if self._mode == "mean" else gradients
        return gradients.index_select(0, self._bag_of_sum)

    def pool(self, outputs: Tensor) -> Tensor:
        """Return the outputs of the lookup, which are pooled already."""
        return outputs

    @cached_property
    def _owners(self) -> Tensor:
        """Whose each row is, int64 [N]."""
        return torch.bucketize(self._positions, self._offsets.to(self._positions.device), right=True).sub_(1)

    @cached_property
    def _pair_sizes(self) -> Tensor:
        """How many rows of each owner each bag has, int64 [owners, B]."""
        num_owners, num_bags = len(self._offsets), len(self._bags.sizes)
        pairs = torch.add(self._bags.of_rows, self._owners, alpha=num_bags)
        return torch.bincount(pairs, minlength=num_owners * num_bags).view(num_owners, num_bags)

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        """The owner and the bag of each of the P sums, int64 [P] both."""
        owners, bags = self._pair_sizes.nonzero(as_tuple=True)
        return owners, bags

    @property
    def _bag_of_sum(self) -> Tensor:
        return self._pairs[1]

    @property
    def _divisors(self) -> Tensor:
        return self._bags.sizes.clamp(min=1)[:, None]


class ListedBags:
    """The U rows that bags contain, each a sum of its own, from which the asking rank pools.

    U is the number of distinct rows, or N if not ``deduplicate``.

    Args:
        positions, offsets: as of SummedBags.
    """

    def __init__(self, positions: Tensor, bags: Bags, mode: Mode, offsets: Tensor, deduplicate: bool = True) -> None:
        self._positions, self._bags, self._mode, self._offsets = positions, bags, mode, offsets
        self._deduplicate = deduplicate

    @cached_property
    def named(self) -> NamedSums:
        """The U rows."""
        rows = self._runs.distinct
        owners = torch.bucketize(rows, self._offsets.to(rows.device), right=True).sub_(1)
        return NamedSums(rows, self._runs.counts, Bags(torch.ones_like(rows)), owners)

    @property
    def num_sums(self) -> int:
        """How many rows would travel."""
        return len(self._runs.distinct)

    def read(self, whole: Tensor) -> Tensor:
        """Return the U rows, [U, D], from all rows of the table, ordered by position: [num_rows, D]."""
        return whole.index_select(0, self._runs.distinct)

    def expand(self, rows: Tensor) -> Tensor:
        """Return the U rows, [U, D], as they came."""
        return rows

    def reduce(self, gradients: Tensor) -> Tensor:
        """Return the gradients of the U rows, [U, D], in a tensor of their own."""
        return gradients.clone()

    def pool(self, outputs: Tensor) -> Tensor:
        """Return the pooled bags, [B, D], from the U rows, [U, D]: differentiable in them and in the weights."""
        values = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return self._bags.pool(self._runs.inverse, values, self._mode).to(outputs.dtype)

    @cached_property
    def _runs(self) -> Runs:
        return Runs.of(self._positions, self._deduplicate)
