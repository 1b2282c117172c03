"""Who sends what to whom when rows are looked up, and when their gradients return.

All ranks of the group call the same functions in the same order, also with an empty batch. Let W be the group's size:

    make_plan          1. header     all_to_all [W, 2]: how many rows I ask of you, and whether my ids are valid
                       2. requests   all_to_all: the numbers of those rows within your shard, each asked for once
    fetch_rows         3. rows       all_to_all: you send me the rows, in the order in which I asked
    return_gradients   4. gradients  all_to_all: I send you the gradients of those rows, in the same order

Step 4 is the dual of step 3: the same plan with senders and receivers exchanged. No rank assumes a size: every count is
received before the data that it describes. If a header says that a rank's ids are invalid, all ranks learn it in step
1, gather the messages, and raise that of the first such rank.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import gather_texts
from dist_s2s.sharded.partition import RowPartition

_VALID, _OUT_OF_RANGE, _NOT_INTEGER = 0, 1, 2
_INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass
class ExchangeStatistics:
    """What a table's exchanges have cost this rank since ``reset``.

    ``seconds`` is wall time inside collectives, waiting for slower ranks included (on CUDA: the time to enqueue them).
    """

    seconds: float = 0.0
    collectives: int = 0
    bytes_sent: int = 0
    ids: int = 0
    distinct_ids: int = 0

    def reset(self) -> None:
        """Starts counting anew."""
        self.seconds, self.collectives, self.bytes_sent, self.ids, self.distinct_ids = 0.0, 0, 0, 0, 0


@dataclass(frozen=True)
class ExchangePlan:
    """Everything about one exchange but the rows themselves.

    shape: shape of the ids that were looked up.
    inverse: int64 [ids.numel()], the place of each id among the U distinct ids, which are ordered by owner.
    send_counts: for each owner, how many distinct rows this rank asks of it; their sum is U.
    receive_counts: for each rank, how many rows it asks of this one; their sum is R.
    requested_rows: int64 [R], the local rows that the other ranks ask of this one, in the order of the asking ranks.
    """

    shape: torch.Size
    inverse: Tensor
    send_counts: list[int]
    receive_counts: list[int]
    requested_rows: Tensor

    @property
    def num_distinct(self) -> int:
        """U, the number of distinct ids of this rank."""
        return sum(self.send_counts)

    @cached_property
    def merged(self) -> tuple[Tensor, Tensor]:
        """The distinct requested rows, sorted, int64 [M], and the place of each request among them, int64 [R]."""
        rows, places = torch.unique(self.requested_rows, return_inverse=True)
        return rows, places


def rank_and_size(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This rank's number within ``group`` and the group's size; (0, 1) without a group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def make_plan(
    ids: Tensor, partition: RowPartition, group: dist.ProcessGroup | None, statistics: ExchangeStatistics
) -> ExchangePlan:
    """Steps 1 and 2: agrees with all ranks of ``group`` on who sends which rows.

    ids: integers of any shape, every one within [0, partition.num_rows).
    Raises on every rank the error of the first rank whose ids are invalid: IndexError for an id out of range, TypeError
    for ids that are not integers.
    """
    rank, world_size = rank_and_size(group)
    status, message = check_ids(ids, partition.num_rows, rank)
    valid_ids = ids.reshape(-1).long() if status == _VALID else ids.new_empty(0, dtype=torch.int64)
    positions, inverse = torch.unique(partition.positions(valid_ids), return_inverse=True)
    if group is None:
        _raise_if_invalid(status, message)
        requested, send_counts, receive_counts = positions, [len(positions)], [len(positions)]
    else:
        offsets = torch.tensor([partition.offset(owner) for owner in range(world_size)], device=ids.device)
        starts = torch.searchsorted(positions, offsets)
        counts = torch.diff(starts, append=starts.new_tensor([len(positions)]))
        headers = torch.stack((counts, torch.full_like(counts, status)), dim=1)
        received = torch.empty_like(headers)
        _all_to_all(received, headers, None, None, group, statistics)
        receive_counts, statuses = received.t().tolist()
        culprit = next((peer for peer, theirs in enumerate(statuses) if theirs != _VALID), None)
        if culprit is not None:
            _raise_if_invalid(statuses[culprit], gather_texts(message, group, ids.device)[culprit])
        send_counts = counts.tolist()
        rows_within_owner = positions - offsets.repeat_interleave(counts)
        requested = positions.new_empty(sum(receive_counts))
        _all_to_all(requested, rows_within_owner, receive_counts, send_counts, group, statistics)
    statistics.ids += valid_ids.numel()
    statistics.distinct_ids += len(positions)
    return ExchangePlan(ids.shape, inverse, send_counts, receive_counts, requested)


def fetch_rows(
    plan: ExchangePlan, shard: Tensor, group: dist.ProcessGroup | None, statistics: ExchangeStatistics
) -> Tensor:
    """Step 3: this rank's U distinct rows, [U, D]. ``shard`` holds the local rows, [rows, D]."""
    outgoing = shard.index_select(0, plan.requested_rows)
    if group is None:
        return outgoing
    rows = shard.new_empty(plan.num_distinct, shard.shape[1])
    _all_to_all(rows, outgoing, plan.send_counts, plan.receive_counts, group, statistics)
    return rows


def return_gradients(
    plan: ExchangePlan, gradients: Tensor, group: dist.ProcessGroup | None, statistics: ExchangeStatistics
) -> Tensor:
    """Step 4, the dual of fetch_rows: gradients of this rank's U rows, [U, D], in; of the R requested, [R, D], out."""
    if group is None:
        return gradients
    returned = gradients.new_empty(len(plan.requested_rows), gradients.shape[1])
    _all_to_all(returned, gradients, plan.receive_counts, plan.send_counts, group, statistics)
    return returned


def check_ids(ids: Tensor, num_rows: int, rank: int) -> tuple[int, str]:
    """A status for the header, and what to say if it is not zero."""
    if ids.dtype not in _INTEGER_TYPES:
        return (
            _NOT_INTEGER,
            f"ids on rank {rank} must be integers, but their dtype is {ids.dtype}; convert them with .long()",
        )
    if ids.numel() == 0:
        return _VALID, ""
    lowest, highest = torch.stack(ids.aminmax()).tolist()
    if lowest >= 0 and highest < num_rows:
        return _VALID, ""
    ids = ids.long()  # num_rows may be beyond a narrower type
    position = tuple(((ids < 0) | (ids >= num_rows)).nonzero()[0].tolist())
    return (
        _OUT_OF_RANGE,
        f"id {int(ids[position])} at position {position} on rank {rank} is outside [0, {num_rows})",
    )


def _raise_if_invalid(status: int, message: str) -> None:
    if status == _NOT_INTEGER:
        raise TypeError(message)
    if status == _OUT_OF_RANGE:
        raise IndexError(message)


def _all_to_all(
    output: Tensor,
    input: Tensor,
    output_splits: list[int] | None,
    input_splits: list[int] | None,
    group: dist.ProcessGroup,
    statistics: ExchangeStatistics,
) -> None:
    started = time.perf_counter()
    dist.all_to_all_single(output, input.contiguous(), output_splits, input_splits, group=group)
    statistics.seconds += time.perf_counter() - started
    statistics.collectives += 1
    statistics.bytes_sent += input.numel() * input.element_size()
