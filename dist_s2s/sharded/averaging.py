"""An exponential moving average of all weights, which follows only those rows of tables that change.

The dense formula, after each update t = 1, 2, … of the weights w, is ``average += (1 - d_t) · (w - average)``. The
decay ``d_t = min(decay, (1 + t) / (10 + t))`` grows with t, as in TensorFlow's ExponentialMovingAverage and in Marian,
lest the first weights count for long.

A pass over a table of which a step changes few rows would cost more than the step. A row that keeps its value w from
update s to update t moves by the dense formula to ``w + (average - w) · d_(s+1) · … · d_t``, and the product has a
closed form. So with each row goes the number of the last update that its average knows of, and the average catches up
before the row changes, and before it is used: exactly what the dense formula gives, but for rounding.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

_SLOPE = 10  # of the decay's first values, (1 + t) / (10 + t)
_BLOCK_ELEMENTS = 1 << 18  # about 1 MiB of float32 at a time


@dataclass(frozen=True)
class Decay:
    """The decay of each update: the limit is ``decay``, which is within (0, 1)."""

    decay: float

    @property
    def growing(self) -> int:
        """The number of the first updates whose decay is (1 + t) / (10 + t)."""
        return max(0, math.ceil((_SLOPE * self.decay - 1) / (1 - self.decay)) - 1)

    def at(self, update: int) -> float:
        """Return the decay of an update; the first is number 1."""
        return (1 + update) / (_SLOPE + update) if update <= self.growing else self.decay

    def since(self, updates: Tensor, now: int) -> Tensor:
        """Return the product of the decays after each of ``updates`` up to update ``now``, float64 of their shape."""
        first, last = updates.double().clamp(max=self.growing), min(now, self.growing)
        constant = (now - updates.double().clamp(min=self.growing)).clamp(min=0)
        product = torch.pow(self.decay, constant)
        for summand in range(2, _SLOPE + 1):  # (2 + s) … (t + 1) / (11 + s) … (t + 10), without what cancels
            product *= (first + summand) / (last + summand)
        return product


def caught_up(average: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """Return averages [M, D] of rows that have stayed at ``weight`` [M, D], where ``kept`` [M] of the average is left.

    Where ``kept`` is 1, it is the average bit by bit.
    """
    return average.lerp(weight, (1 - kept).to(average.dtype)[:, None])


class MovingAverage:
    """The exponential moving average of a model's weights: of replicated parameters and of tables' shards (local).

    It begins with the weights at the first update. Every rank follows its own rows; ranks with the same weights get the
    same averages. It takes the memory of the weights that learn, and four bytes a row.

    Args:
        dense: parameters of which each update changes all elements.
        tables: weights [rows, D], such as DistributedEmbedding's; of a sparse gradient only the rows are followed.
        decay: see ``Decay``.

    Raises:
        ValueError: for weights in bfloat16 or float16, to which most changes of an average would be lost.

    Attributes:
        updates: how many it has followed.
        averages: by parameter; of a table's row, as of the update that ``known`` names.
        known: by table, int32 [rows].
    """

    def __init__(self, dense: Iterable[Tensor], tables: Iterable[Tensor], decay: float) -> None:
        self.decay = Decay(decay)
        self._dense, self._tables = list(dense), list(tables)
        for weight in [*self._dense, *self._tables]:
            if weight.dtype.itemsize < torch.float32.itemsize:
                raise ValueError(f"an average needs weights in float32 or float64, but some are {weight.dtype}")
        self.updates = 0
        self.averages: dict[Tensor, Tensor] = {}
        self.known: dict[Tensor, Tensor] = {}

    @contextmanager
    @torch.no_grad()
    def following(self) -> Iterator[None]:
        """Take in the update that is made within, from gradients that are still there afterwards."""
        if not self.averages:
            self._begin()
        before = {weight: self._rows_before(weight) for weight in self.known}
        yield
        self.updates += 1
        new = 1 - self.decay.at(self.updates)
        for weight, average in self.averages.items():
            if weight not in before:
                average.lerp_(weight, new)
        for weight, (rows, averages) in before.items():
            if rows is None:
                averages.lerp_(weight, new)
                self.known[weight].fill_(self.updates)
            else:
                averages.lerp_(weight.index_select(0, rows), new)
                self.averages[weight].index_copy_(0, rows, averages)
                self.known[weight].index_fill_(0, rows, self.updates)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """Within, the weights are the averages; afterwards they are again what they were, bit by bit.

        Not collective, but ranks that read each other's rows in place must do it at the same moment. Within, training
        and saving would work on the wrong weights.
        """
        for weight in self.known:
            self._catch_up(weight)
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def restart_rows(self, weight: Tensor, rows: Tensor) -> None:
        """Let the averages of some rows, int64 [N], begin with their weights, as they are now."""
        if weight in self.averages:
            self.averages[weight][rows] = weight[rows]
        if weight in self.known:
            self.known[weight][rows] = self.updates

    def load(self, updates: int, averages: dict[Tensor, Tensor], known: dict[Tensor, Tensor]) -> None:
        """Take what another one had: the attributes of these names."""
        self._begin()
        self.updates = updates
        for weight, values in averages.items():
            self.averages[weight].copy_(values)
        for weight, numbers in known.items():
            self.known[weight].copy_(numbers)

    def _begin(self) -> None:
        for weight in [*self._dense, *self._tables]:
            if weight.requires_grad:
                self.averages[weight] = weight.detach().clone()
        for weight in self._tables:
            if weight.requires_grad:
                self.known[weight] = weight.new_zeros(len(weight), dtype=torch.int32)

    def _rows_before(self, weight: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the rows that the update will change, None for all, and their averages, which have caught up."""
        gradient = weight.grad
        if gradient is not None and not gradient.is_sparse:
            self._catch_up(weight)
            return None, self.averages[weight]
        rows = torch.empty(0, dtype=torch.int64, device=weight.device)
        if gradient is not None:
            rows = gradient.coalesce().indices()[0]
        kept = self.decay.since(self.known[weight][rows], self.updates)
        return rows, caught_up(self.averages[weight].index_select(0, rows), weight.index_select(0, rows), kept)

    def _catch_up(self, weight: Tensor) -> None:
        """Bring the averages of all rows of a table up to the last update."""
        average, known = self.averages[weight], self.known[weight]
        if not bool((known < self.updates).any()):  # its gradients are dense
            return
        size = max(1, _BLOCK_ELEMENTS // weight.shape[1])
        for start in range(0, len(known), size):
            rows = slice(start, start + size)
            kept = self.decay.since(known[rows], self.updates)
            average[rows] = caught_up(average[rows], weight[rows], kept)
        known.fill_(self.updates)

    def _swap(self) -> None:
        """Exchange weights and averages, in blocks."""
        for weight, average in self.averages.items():
            here, there = weight.detach().view(-1), average.view(-1)
            for start in range(0, len(here), _BLOCK_ELEMENTS):
                block = slice(start, start + _BLOCK_ELEMENTS)
                old = here[block].clone()
                here[block] = there[block]
                there[block] = old
