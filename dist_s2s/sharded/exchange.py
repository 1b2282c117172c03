"""Who sends what to whom when rows are looked up, and when their gradients return.

Rows of several tables travel together. All ranks of the group call the same functions in the same order, also with an
empty batch. Let W be the group's size and T the number of tables:

    plan_exchange      1. header     all_to_all [W, T + 1]: how many rows of each table I ask of you, and my status
                       2. requests   all_to_all: the numbers of those rows within your shards, each asked for once
    fetch_rows         3. rows       all_to_all: you send me the rows, in the order in which I asked
    return_gradients   4. gradients  all_to_all: I send you the gradients of those rows, in the same order

Step 4 is the dual of step 3: the same plan with senders and receivers exchanged. No rank assumes a size: every count is
received before the data that it describes. If a header says that a rank is in trouble, all ranks learn it in step 1,
gather the messages, and raise that of the first such rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import raise_first, status_of
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.transport import ExchangeStatistics, all_to_all, exchange_blocks, rank_and_size

_INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class TablePlan:
    """One table's part of an exchange: everything but the rows themselves.

    ids: a copy of the ids that are looked up.
    inverse: int64 [ids.numel()], the place of each id among the U distinct ids, which are ordered by owner.
    send_counts: for each owner, how many distinct rows this rank asks of it; their sum is U.
    receive_counts: for each rank, how many rows it asks of this one; their sum is R.
    requested_rows: int64 [R], the local rows that the ranks ask of this one, in the order of the asking ranks.
    frequencies: int64 [R], how often the asking rank's ids contain each of them; None if nobody needs to know.
    """

    ids: Tensor
    inverse: Tensor
    send_counts: list[int]
    receive_counts: list[int]
    requested_rows: Tensor
    frequencies: Tensor | None = None

    @property
    def num_distinct(self) -> int:
        """U, the number of distinct ids of this rank."""
        return sum(self.send_counts)

    @cached_property
    def merged(self) -> tuple[Tensor, Tensor]:
        """The distinct requested rows, sorted, int64 [M], and the place of each request among them, int64 [R]."""
        rows, places = torch.unique(self.requested_rows, return_inverse=True)
        return rows, places

    def to(self, device: torch.device) -> Self:
        """The same plan with its tensors on ``device``."""
        return replace(
            self,
            ids=self.ids.to(device),
            inverse=self.inverse.to(device),
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


def plan_exchange(
    ids: Sequence[Tensor],
    partitions: Sequence[RowPartition],
    counted: Sequence[bool],
    group: dist.ProcessGroup | None,
    statistics: ExchangeStatistics,
    error: Exception | None = None,
) -> tuple[TablePlan, ...]:
    """Steps 1 and 2: agrees with all ranks of ``group`` on who sends which rows of which table.

    ids: for each table integers of any shape, every one within [0, num_rows) of its partition.
    counted: for each table whether its owners are to know how often a row is asked for; the same on every rank.
    error: trouble that this rank has found already, to be raised everywhere.
    Raises on every rank the error of the first rank that has one: its ``error``, IndexError for an id out of range,
    TypeError for ids that are not integers.
    """
    rank = rank_and_size(group)[0]
    if error is None:
        problems = (check_ids(mine, part.num_rows, rank) for mine, part in zip(ids, partitions, strict=True))
        error = next((problem for problem in problems if problem is not None), None)
    if group is None:
        if error is not None:
            raise error
        return tuple(
            _local_plan(mine, partition, count) for mine, partition, count in zip(ids, partitions, counted, strict=True)
        )
    device = next((mine.device for mine in ids if isinstance(mine, Tensor)), torch.device("cpu"))
    usable = ids if error is None else [torch.empty(0, dtype=torch.int64, device=device)] * len(partitions)
    wanted = [
        _wanted(mine, partition, count) for mine, partition, count in zip(usable, partitions, counted, strict=True)
    ]
    counts_TW = torch.stack([counts for *_, counts in wanted])
    header = torch.cat((counts_TW, torch.full_like(counts_TW[:1], status_of(error)))).t().contiguous()
    received = torch.empty_like(header)
    all_to_all(received, header, None, None, group, statistics)
    *receive_counts, statuses = received.t().tolist()
    raise_first(statuses, error, group, device)
    send_counts = counts_TW.tolist()
    requests = exchange_blocks([block for _, block, _ in wanted], send_counts, receive_counts, group, statistics)
    return tuple(
        TablePlan(mine.clone(), inverse, sent, got, block[:, 0].contiguous(), block[:, 1] if count else None)
        for mine, (inverse, _, _), sent, got, block, count in zip(
            ids, wanted, send_counts, receive_counts, requests, counted, strict=True
        )
    )


def _wanted(ids: Tensor, partition: RowPartition, counted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse, the requests [U, 1 or 2] ordered by owner, and how many of them go to each owner, [W]."""
    positions = partition.positions(ids.reshape(-1).long())
    distinct, inverse, frequencies = _unique(positions, counted)
    offsets = torch.tensor([partition.offset(owner) for owner in range(partition.num_shards)], device=ids.device)
    starts = torch.searchsorted(distinct, offsets)
    counts = torch.diff(starts, append=starts.new_tensor([len(distinct)]))
    rows = distinct - offsets.repeat_interleave(counts)
    columns = [rows] if frequencies is None else [rows, frequencies]
    return inverse, torch.stack(columns, dim=1), counts


def _local_plan(ids: Tensor, partition: RowPartition, counted: bool) -> TablePlan:
    rows, inverse, frequencies = _unique(partition.positions(ids.reshape(-1).long()), counted)
    return TablePlan(ids.clone(), inverse, [len(rows)], [len(rows)], rows, frequencies)


def _unique(positions: Tensor, counted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    distinct, inverse = torch.unique(positions, return_inverse=True)
    return distinct, inverse, torch.bincount(inverse, minlength=len(distinct)) if counted else None


def fetch_rows(
    parts: Sequence[TablePlan],
    shards: Sequence[Tensor],
    comm_dtype: torch.dtype | None,
    group: dist.ProcessGroup | None,
    statistics: ExchangeStatistics,
) -> list[Tensor]:
    """Step 3: for each table this rank's U distinct rows, [U, D]. ``shards`` hold the local rows, [rows, D].

    comm_dtype: the type in which rows travel; None: their own, which then is the same for all tables.
    """
    outgoing = [shard.index_select(0, part.requested_rows) for shard, part in zip(shards, parts, strict=True)]
    if group is None:
        return outgoing
    asked, wanted = [part.receive_counts for part in parts], [part.send_counts for part in parts]
    return _exchange_in(comm_dtype, outgoing, asked, wanted, group, statistics)


def return_gradients(
    parts: Sequence[TablePlan],
    gradients: Sequence[Tensor],
    comm_dtype: torch.dtype | None,
    group: dist.ProcessGroup | None,
    statistics: ExchangeStatistics,
) -> list[Tensor]:
    """Step 4, the dual of fetch_rows: gradients of this rank's U rows, [U, D], in; of the R requested, [R, D], out."""
    if group is None:
        return list(gradients)
    asked, wanted = [part.receive_counts for part in parts], [part.send_counts for part in parts]
    return _exchange_in(comm_dtype, gradients, wanted, asked, group, statistics)


def _exchange_in(
    comm_dtype: torch.dtype | None,
    blocks: Sequence[Tensor],
    send_counts: Sequence[Sequence[int]],
    receive_counts: Sequence[Sequence[int]],
    group: dist.ProcessGroup,
    statistics: ExchangeStatistics,
) -> list[Tensor]:
    """exchange_blocks in another dtype; what arrives has that of the blocks again."""
    travelling = [block.to(comm_dtype or block.dtype) for block in blocks]
    received = exchange_blocks(travelling, send_counts, receive_counts, group, statistics)
    return [theirs.to(block.dtype) for theirs, block in zip(received, blocks, strict=True)]


def check_ids(ids: object, num_rows: int, rank: int) -> Exception | None:
    """What is wrong with them: TypeError if they are no tensor of integers, IndexError if one is out of range."""
    if not isinstance(ids, Tensor):
        return TypeError(f"ids on rank {rank} must be a tensor of integers, but are a {type(ids).__name__}")
    if ids.dtype not in _INTEGER_TYPES:
        return TypeError(
            f"ids on rank {rank} must be integers, but their dtype is {ids.dtype}; convert them with .long()"
        )
    if ids.numel() == 0:
        return None
    lowest, highest = torch.stack(ids.aminmax()).tolist()
    if lowest >= 0 and highest < num_rows:
        return None
    ids = ids.long()  # num_rows may be beyond a narrower type
    position = tuple(((ids < 0) | (ids >= num_rows)).nonzero()[0].tolist())
    return IndexError(f"id {int(ids[position])} at position {position} on rank {rank} is outside [0, {num_rows})")
