"""Who sends what to whom when rows are looked up, and when their gradients return.

Rows of several tables travel together. All ranks of the group call the same functions in the same order, also with an
empty batch; how bytes move is the transport's business:

    plan_exchange                1. requests   how many rows of each table I ask of you, which, and my status
    Transport.fetch_rows         2. rows       you send me the rows, in the order in which I asked
    Transport.return_gradients   3. gradients  I send you the gradients of those rows, in the same order

Step 3 is the dual of step 2: the same plan with senders and receivers exchanged. No rank assumes a size: every count is
received before the data that it describes. If a rank is in trouble, all ranks learn it in step 1, gather the messages,
and raise that of the first such rank.

Where ranks read rows in memory that they share, nothing is asked for before backward, and steps 1 and 3 are one:
Transport.push_gradients. LookupInPlace in lookup_function.py is that lookup; its errors are told in
Transport.begin_reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import raise_first, status_of
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.plan import RequestedRows, TablePlan
from dist_s2s.sharded.runs import Runs
from dist_s2s.sharded.transport import ExchangeStatistics, Requests, Transport

_INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def plan_exchange(
    ids: Sequence[Tensor],
    partitions: Sequence[RowPartition],
    counted: Sequence[bool],
    transport: Transport,
    group: dist.ProcessGroup | None,
    statistics: ExchangeStatistics,
    error: Exception | None = None,
    deduplicate: bool = True,
) -> tuple[TablePlan, ...]:
    """Step 1: agrees with all ranks of ``group`` on who sends which rows of which table.

    ids: for each table integers of any shape, every one within [0, num_rows) of its partition.
    counted: for each table whether its owners are to know how often a row is asked for; the same on every rank.
    transport: between the ranks of group.
    error: trouble that this rank has found already, to be raised everywhere.
    deduplicate: ask for each row once, however many ids name it; the same on every rank.
    Raises on every rank the error of the first rank that has one: its ``error``, IndexError for an id out of range,
    TypeError for ids that are not integers.
    """
    if error is None:
        error = check_all_ids(ids, partitions, transport.rank)
    device = next((mine.device for mine in ids if isinstance(mine, Tensor)), torch.device("cpu"))
    usable = ids if error is None else [torch.empty(0, dtype=torch.int64, device=device)] * len(partitions)
    wanted = [
        WantedRows.of(partition.positions(mine.reshape(-1).long()), partition, counts, deduplicate)
        for mine, partition, counts in zip(usable, partitions, counted, strict=True)
    ]
    requests = transport.exchange_requests(
        [mine.requests for mine in wanted], [mine.send_counts for mine in wanted], status_of(error), statistics
    )
    raise_first(requests.statuses, error, group, device)
    requested = requested_rows(wanted, requests, transport.rank)
    return tuple(
        TablePlan(mine.clone(), rows.runs, rows.send_counts, asked)
        for mine, rows, asked in zip(usable, wanted, requested, strict=True)
    )


@dataclass(frozen=True)
class WantedRows:
    """What this rank asks of a table.

    partition, counted, deduplicated: as of plan_exchange.
    runs: of the positions that are looked up, U distinct ones.
    requests: int64 [U, 1 or 2], these and, if counted, how often each is wanted, ordered by owner. They are positions;
    an owner knows how far they are from its rows.
    send_counts: how many go to each owner.
    """

    partition: RowPartition
    counted: bool
    deduplicated: bool
    runs: Runs
    requests: Tensor
    send_counts: list[int]

    @classmethod
    def of(cls, positions: Tensor, partition: RowPartition, counted: bool, deduplicate: bool) -> Self:
        """What positions, int64 [N], make this rank ask for."""
        runs = Runs.of(positions, deduplicate)
        starts = [0, len(runs.distinct)]
        if partition.num_shards > 1:
            starts[:1] = torch.searchsorted(runs.distinct, partition.offsets.to(positions.device)).tolist()
        requests = torch.stack((runs.distinct, runs.counts), dim=1) if counted else runs.distinct[:, None]
        send_counts = [end - start for start, end in pairwise(starts)]
        return cls(partition, counted, deduplicate, runs, requests, send_counts)


def requested_rows(wanted: Sequence[WantedRows], requests: Requests, rank: int) -> tuple[RequestedRows, ...]:
    """What is asked of this rank, for each table; all ranks ask in the same way."""
    return tuple(
        RequestedRows(
            counts=requests.counts[table],
            starts=requests.starts[table],
            totals=requests.totals[table],
            rows=requests.blocks[table][:, 0] - mine.partition.offset(rank),
            frequencies=requests.blocks[table][:, 1] if mine.counted else None,
            once=mine.deduplicated and mine.partition.num_shards == 1,
        )
        for table, mine in enumerate(wanted)
    )


def check_all_ids(ids: Sequence[object], partitions: Sequence[RowPartition], rank: int) -> Exception | None:
    """What is wrong with the ids of the first table with such; see check_ids."""
    problems = (check_ids(mine, partition.num_rows, rank) for mine, partition in zip(ids, partitions, strict=True))
    return next((problem for problem in problems if problem is not None), None)


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
