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
class RequestedRows:
    """Rows of one table that the ranks ask of this one.

    counts: for each rank, how many; their sum is R.
    starts: for each rank, the place of the first of these among all the rows that it asks for.
    totals: for each rank, how many rows it asks for, its U.
    rows: int64 [R], the local rows, in the order of the asking ranks.
    frequencies: int64 [R], how often the asking rank's ids contain each of them; None if nobody needs to know.
    once: whether ``rows`` are sorted and distinct, because a single rank has asked.
    """

    counts: list[int]
    starts: list[int]
    totals: list[int]
    rows: Tensor
    frequencies: Tensor | None = None
    once: bool = False

    @cached_property
    def runs(self) -> Runs:
        """The runs of the rows: of M distinct ones."""
        return Runs.of(self.rows)

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on ``device``."""
        frequencies = None if self.frequencies is None else self.frequencies.to(device)
        return replace(self, rows=self.rows.to(device), frequencies=frequencies)


@dataclass(frozen=True)
class TablePlan:
    """One table's part of an exchange: everything but the rows themselves.

    ids: a copy of the ids that are looked up.
    wanted: the runs of their positions: of U rows, ordered by owner, which this rank asks for.
    send_counts: for each owner, how many rows this rank asks of it; their sum is U.
    requested: the rows that are asked of this rank.
    """

    ids: Tensor
    wanted: Runs
    send_counts: list[int]
    requested: RequestedRows

    @property
    def num_wanted(self) -> int:
        """U, the number of rows that this rank asks for: of its distinct ids, if they are deduplicated."""
        return len(self.wanted.distinct)

    def to(self, device: torch.device) -> Self:
        """The same plan with its tensors on ``device``."""
        return replace(
            self, ids=self.ids.to(device), wanted=self.wanted.to(device), requested=self.requested.to(device)
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
