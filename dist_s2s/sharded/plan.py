"""What ranks have agreed on before rows travel."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.runs import Runs


@dataclass(frozen=True)
class TablePlan:
    """One table's part of an exchange: everything but the rows themselves.

    ids: a copy of the ids that are looked up.
    wanted: the runs of their positions: of U rows, ordered by owner, which this rank asks for.
    send_counts: for each owner, how many rows this rank asks of it; their sum is U.
    receive_counts: for each rank, how many rows it asks of this one; their sum is R.
    receive_starts: for each rank, the place of the first of these among all the rows that it asks for.
    receive_totals: for each rank, how many rows it asks for, its U.
    requested_rows: int64 [R], the local rows that the ranks ask of this one, in the order of the asking ranks.
    frequencies: int64 [R], how often the asking rank's ids contain each of them; None if nobody needs to know.
    requested_once: whether requested_rows are sorted and distinct, because a single rank has asked.
    """

    ids: Tensor
    wanted: Runs
    send_counts: list[int]
    receive_counts: list[int]
    receive_starts: list[int]
    receive_totals: list[int]
    requested_rows: Tensor
    frequencies: Tensor | None = None
    requested_once: bool = False

    @property
    def num_wanted(self) -> int:
        """U, the number of rows that this rank asks for: of its distinct ids, if they are deduplicated."""
        return len(self.wanted.distinct)

    @cached_property
    def requested(self) -> Runs:
        """The runs of the requested rows: of M distinct ones."""
        return Runs.of(self.requested_rows)

    def to(self, device: torch.device) -> Self:
        """The same plan with its tensors on ``device``."""
        return replace(
            self,
            ids=self.ids.to(device),
            wanted=self.wanted.to(device),
            requested_rows=self.requested_rows.to(device),
            frequencies=None if self.frequencies is None else self.frequencies.to(device),
        )


@dataclass(frozen=True)
class ExchangePlan:
    """What all ranks have agreed on before rows travel: a TablePlan for each table that shares the exchange.

    number: the same on every rank for the plan of the same ``plan`` call.
    group, partitions: for whom it was made.
    """

    number: int
    group: dist.ProcessGroup | None
    partitions: tuple[RowPartition, ...]
    parts: tuple[TablePlan, ...]

    def to(self, device: torch.device) -> Self:
        """The same plan with its tensors on ``device``."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))
