"""The exchange by torch.distributed: one all_to_all, or two where counts must come first.

    exchange_requests   1. header    [W, 3T + 1]: for each table counts, starts and totals, then the status
                        2. requests  only if no rank is in trouble: the rows asked for
    all others          one all_to_all

A message from one rank to another holds the first table's rows for it, then the second's, and so on. No rank assumes a
size: every count is received before the data that it describes.
"""

import math
import time
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import gather, missing_ranks_named
from dist_s2s.sharded.plan import TablePlan
from dist_s2s.sharded.transport import ExchangeStatistics, Requests, Transport, divide, rank_and_size


class CollectiveTransport(Transport):
    """Collectives of ``group``, of any backend; ``device`` is where its tensors are."""

    name = "collective"

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.world_size = rank_and_size(group)

    def exchange_requests(
        self, blocks: Sequence[Tensor], send_counts: list[list[int]], status: int, statistics: ExchangeStatistics
    ) -> Requests:
        """Two all_to_alls: the header, and the requests if no rank is in trouble."""
        columns = []
        for sent in send_counts:
            columns += [sent, list(accumulate(sent, initial=0))[:-1], [sum(sent)] * self.world_size]
        header = torch.tensor([*columns, [status] * self.world_size], device=self.device).t().contiguous()
        received = torch.empty_like(header)
        self._all_to_all(received, header, None, None, statistics)
        *numbers, statuses = received.t().tolist()
        counts, starts, totals = numbers[::3], numbers[1::3], numbers[2::3]
        got = [] if any(statuses) else self._exchange_blocks(blocks, send_counts, counts, statistics)
        return Requests(statuses, counts, starts, totals, got)

    def fetch_rows(
        self,
        parts: Sequence[TablePlan],
        shards: Sequence[Tensor],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One all_to_all."""
        rows = [shard.index_select(0, part.requested.rows).to(dtype) for shard, part in zip(shards, parts, strict=True)]
        asked, wanted = [part.requested.counts for part in parts], [part.send_counts for part in parts]
        return self._exchange_blocks(rows, asked, wanted, statistics)

    def return_gradients(
        self,
        parts: Sequence[TablePlan],
        blocks: Sequence[Tensor],
        divisors: Sequence[float],
        dtype: torch.dtype,
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One all_to_all."""
        asked, wanted = [part.requested.counts for part in parts], [part.send_counts for part in parts]
        divided = [divide(block, divisor).to(dtype) for block, divisor in zip(blocks, divisors, strict=True)]
        return self._exchange_blocks(divided, wanted, asked, statistics)

    def gather(self, tensor: Tensor, statistics: ExchangeStatistics) -> list[Tensor]:
        """One all_to_all, see agreement.gather."""
        started = time.perf_counter()
        gathered = gather(tensor, self.group)
        statistics.seconds += time.perf_counter() - started
        statistics.collectives += 1
        statistics.bytes_sent += tensor.numel() * tensor.element_size() * self.world_size
        return gathered

    def gather_rows(self, rows: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> Tensor:
        """One all_to_all, in which each rank sends the same to all."""
        width = math.prod(rows.shape[1:])
        output = rows.new_empty(sum(counts), *rows.shape[1:])
        outgoing = rows.reshape(-1).expand(self.world_size, -1).reshape(-1)
        self._all_to_all(
            output.view(-1), outgoing, [count * width for count in counts], [rows.numel()] * self.world_size, statistics
        )
        return output

    def return_rows(self, block: Tensor, counts: Sequence[int], statistics: ExchangeStatistics) -> list[Tensor]:
        """One all_to_all."""
        mine = [counts[self.rank]] * self.world_size
        [received] = self._exchange_blocks([block], [counts], [mine], statistics)
        return list(received.split(mine))

    def _exchange_blocks(
        self,
        blocks: Sequence[Tensor],
        send_counts: Sequence[Sequence[int]],
        receive_counts: Sequence[Sequence[int]],
        statistics: ExchangeStatistics,
    ) -> list[Tensor]:
        """One all_to_all for one block of rows per table.

        blocks[t]: [sum(send_counts[t]), width of t], all of one dtype, its rows ordered by the rank that gets them.
        Returns [sum(receive_counts[t]), width of t] for each t, ordered by the rank that sent them.
        """
        widths = [block.shape[1] for block in blocks]
        send_sizes, receive_sizes = _message_sizes(widths, send_counts), _message_sizes(widths, receive_counts)
        output = blocks[0].new_empty(sum(receive_sizes))
        if len(blocks) == 1:
            self._all_to_all(output, blocks[0].reshape(-1), receive_sizes, send_sizes, statistics)
            return [output.view(-1, widths[0])]
        sizes = [_times(counts, width) for counts, width in zip(send_counts, widths, strict=True)]
        pieces = [block.reshape(-1).split(per_rank) for block, per_rank in zip(blocks, sizes, strict=True)]
        outgoing = torch.cat([piece for message in zip(*pieces, strict=True) for piece in message])
        self._all_to_all(output, outgoing, receive_sizes, send_sizes, statistics)
        sizes = [_times(counts, width) for counts, width in zip(receive_counts, widths, strict=True)]
        received = output.split([size for message in zip(*sizes, strict=True) for size in message])
        return [torch.cat(received[table :: len(blocks)]).view(-1, width) for table, width in enumerate(widths)]

    def _all_to_all(
        self,
        output: Tensor,
        input: Tensor,
        output_splits: list[int] | None,
        input_splits: list[int] | None,
        statistics: ExchangeStatistics,
    ) -> None:
        """all_to_all_single, timed; raises RuntimeError that names a missing rank."""
        started = time.perf_counter()
        with missing_ranks_named(self.group):
            dist.all_to_all_single(output, input, output_splits, input_splits, group=self.group)
        statistics.seconds += time.perf_counter() - started
        statistics.collectives += 1
        statistics.bytes_sent += input.numel() * input.element_size()


def _times(counts: Sequence[int], width: int) -> list[int]:
    return [count * width for count in counts]


def _message_sizes(widths: Sequence[int], counts: Sequence[Sequence[int]]) -> list[int]:
    """Elements of the message of each rank, the parts of all tables together."""
    return [sum(c * w for c, w in zip(of_rank, widths, strict=True)) for of_rank in zip(*counts, strict=True)]
