"""How bytes move between ranks: blocks of rows, of several tables at once, in one all_to_all.

A message from one rank to another holds the first table's rows for it, then the second's, and so on.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import missing_ranks_named


@dataclass
class ExchangeStatistics:
    """What a table's exchanges have cost this rank since ``reset``.

    ``seconds`` is wall time inside collectives, waiting for slower ranks included (on CUDA: the time to enqueue them).
    An exchange that several tables share counts for the first of them, all but its ids.
    """

    seconds: float = 0.0
    collectives: int = 0
    bytes_sent: int = 0
    ids: int = 0
    distinct_ids: int = 0

    def reset(self) -> None:
        """Starts counting anew."""
        self.seconds, self.collectives, self.bytes_sent, self.ids, self.distinct_ids = 0.0, 0, 0, 0, 0


def rank_and_size(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This rank's number within ``group`` and the group's size; (0, 1) without a group."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))


def exchange_blocks(
    blocks: Sequence[Tensor],
    send_counts: Sequence[Sequence[int]],
    receive_counts: Sequence[Sequence[int]],
    group: dist.ProcessGroup,
    statistics: ExchangeStatistics,
) -> list[Tensor]:
    """One all_to_all for one block of rows per table.

    blocks[t]: [sum(send_counts[t]), width of t], all of one dtype, its rows ordered by the rank that is to get them.
    Returns [sum(receive_counts[t]), width of t] for each t, ordered by the rank that sent them.
    """
    widths = [block.shape[1] for block in blocks]
    send_sizes, receive_sizes = _message_sizes(widths, send_counts), _message_sizes(widths, receive_counts)
    output = receive_buffer(blocks[0], sum(receive_sizes))
    if len(blocks) == 1:
        all_to_all(output, blocks[0].reshape(-1), receive_sizes, send_sizes, group, statistics)
        return [output.view(-1, widths[0])]
    sizes = [_times(counts, width) for counts, width in zip(send_counts, widths, strict=True)]
    pieces = [block.reshape(-1).split(per_rank) for block, per_rank in zip(blocks, sizes, strict=True)]
    outgoing = torch.cat([piece for message in zip(*pieces, strict=True) for piece in message])
    all_to_all(output, outgoing, receive_sizes, send_sizes, group, statistics)
    sizes = [_times(counts, width) for counts, width in zip(receive_counts, widths, strict=True)]
    received = output.split([size for message in zip(*sizes, strict=True) for size in message])
    return [torch.cat(received[table :: len(blocks)]).view(-1, width) for table, width in enumerate(widths)]


def receive_buffer(like: Tensor, size: int) -> Tensor:
    """Memory for ``size`` elements, which the exchange fills completely."""
    return like.new_empty(size)


def _times(counts: Sequence[int], width: int) -> list[int]:
    return [count * width for count in counts]


def _message_sizes(widths: Sequence[int], counts: Sequence[Sequence[int]]) -> list[int]:
    """Elements of the message of each rank, the parts of all tables together."""
    return [sum(c * w for c, w in zip(of_rank, widths, strict=True)) for of_rank in zip(*counts, strict=True)]


def all_to_all(
    output: Tensor,
    input: Tensor,
    output_splits: list[int] | None,
    input_splits: list[int] | None,
    group: dist.ProcessGroup,
    statistics: ExchangeStatistics,
) -> None:
    """all_to_all_single, timed; raises RuntimeError that names a missing rank."""
    started = time.perf_counter()
    with missing_ranks_named(group):
        dist.all_to_all_single(output, input, output_splits, input_splits, group=group)
    statistics.seconds += time.perf_counter() - started
    statistics.collectives += 1
    statistics.bytes_sent += input.numel() * input.element_size()
