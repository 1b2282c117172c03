"""Exchanges by torch.distributed's all-to-all.

    1. first   one all_to_all of 48 KiB from each rank, see first_message.py: which exchange this is, and which rows of
               each block are for whom; and the rows too, if they fit
    2. rows    one all_to_all for all blocks of a dtype, if nobody is in trouble, and the rows of some rank did not fit

In the second a message holds the first block's rows for a rank, then the second's, and so on. No rank assumes a size:
every count is received before the data that it describes, be it in front of them or in an earlier exchange of the same
call.
"""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.transport.first_message import FIXED_WORDS, FirstMessage
from dist_s2s.sharded.transport.missing_ranks import missing_ranks_named
from dist_s2s.sharded.transport.protocol import Block, ExchangeStatistics, Parcel, PeerRows, Received

FIRST_BYTES = 48 * 1024  # of a rank's first messages together: about 12,000 ids fit
LEAST_BYTES = 1024  # of one of them


class CollectiveTransport:
    """Collectives of ``group``, of any backend; ``device`` is where blocks are."""

    name = "collective"

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.statistics = ExchangeStatistics()
        self._is_interrupted = False

    def exchange(self, parcel: Parcel) -> Received:
        """Exchange parcels in one all_to_all; if the rows of some rank are many, in one more for each dtype."""
        if self._is_interrupted:  # the others wait for what this rank did not send, and would take this for it
            raise RuntimeError("an exchange of the table was interrupted; build the table anew, in a new process group")
        self._is_interrupted = True
        received = self._exchange(parcel)
        self._is_interrupted = False
        return received

    def _exchange(self, parcel: Parcel) -> Received:
        if parcel.expected is not None:
            incoming, same = [list(rows) for rows in parcel.expected], [0] * self.size
            return Received(same, same, same, [], incoming, self._deliver(parcel, _tensors(parcel.blocks), incoming))
        num_bytes = max(LEAST_BYTES, FIRST_BYTES // self.size // 8 * 8)
        first = FirstMessage(parcel, self.size, num_bytes)
        tensors = _tensors(parcel.blocks) if first.carries_rows else []
        message = first.write(tensors, self.device)
        arrived = torch.empty_like(message)
        work = self._start(arrived, message)
        self.statistics.bytes_sent += first.num_bytes_used
        if first.rows_follow:  # they are made while the first message travels
            tensors = _tensors(parcel.blocks)
        self._finish(work)
        rows = first.words_in(arrived).tolist()
        identities, statuses, notes, following = ([row[place] for row in rows] for place in range(FIXED_WORDS))
        result = Received(identities, statuses, notes)
        if result.is_refused:
            return result
        more = first.words[:, first.fitting :].contiguous().to(self.device)
        if more.numel():
            rest = torch.empty_like(more)
            self._finish(self._start(rest, more))
            self.statistics.bytes_sent += more.nbytes
            rows = [row + further for row, further in zip(rows, rest.tolist(), strict=True)]
        numbers, incoming = parcel.read_words([row[FIXED_WORDS:] for row in rows])
        follow = any(following)
        received = self._deliver(parcel, tensors, incoming) if follow else first.read_rows(arrived, incoming)
        return Received(identities, statuses, notes, numbers, incoming, received)

    def _deliver(
        self, parcel: Parcel, tensors: Sequence[Tensor], incoming: Sequence[Sequence[PeerRows]]
    ) -> list[Tensor]:
        """Exchange the rows of blocks of one or more dtypes: one all_to_all for each dtype."""
        outgoing, widths = parcel.outgoing, [block.width for block in parcel.blocks]
        result: list[Tensor] = [torch.empty(0)] * len(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            mine = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
            pieces = [
                tensors[number][rows.start : rows.start + rows.count].reshape(-1)
                for rank in range(self.size)
                for number in mine
                for rows in [outgoing[number][rank]]
            ]
            sizes = [[incoming[number][rank].count * widths[number] for number in mine] for rank in range(self.size)]
            send_sizes = [
                sum(piece.numel() for piece in pieces[rank * len(mine) : (rank + 1) * len(mine)])
                for rank in range(self.size)
            ]
            whole = len(mine) == 1 and sum(send_sizes) == tensors[mine[0]].numel()  # ordered as it is to be sent
            message = tensors[mine[0]].reshape(-1) if whole and _in_order(outgoing[mine[0]]) else torch.cat(pieces)
            output = message.new_empty(sum(map(sum, sizes)))
            self._finish(self._start(output, message, [sum(row) for row in sizes], send_sizes))
            self.statistics.bytes_sent += message.nbytes
            arrived = output.split([size for row in sizes for size in row])
            for place, number in enumerate(mine):
                parts, count = arrived[place :: len(mine)], sum(rows.count for rows in incoming[number])
                result[number] = (output if len(mine) == 1 else torch.cat(parts)).view(count, widths[number])
        return result

    def _start(
        self,
        output: Tensor,
        message: Tensor,
        output_sizes: list[int] | None = None,
        message_sizes: list[int] | None = None,
    ) -> dist.Work:
        """Begin an all_to_all_single."""
        started = time.perf_counter()
        with missing_ranks_named(self.group):
            work: dist.Work = dist.all_to_all_single(
                output, message, output_sizes, message_sizes, group=self.group, async_op=True
            )
        self.statistics.seconds += time.perf_counter() - started
        self.statistics.collectives += 1
        return work

    def _finish(self, work: dist.Work) -> None:
        """Wait for it; raise RuntimeError that names a missing rank."""
        started = time.perf_counter()
        with missing_ranks_named(self.group):
            work.wait()
        self.statistics.seconds += time.perf_counter() - started


def _tensors(blocks: Sequence[Block]) -> list[Tensor]:
    return [block.divided().to(block.dtype) for block in blocks]


def _in_order(parts: Sequence[PeerRows]) -> bool:
    """Tell whether parts follow each other in the order of the ranks, without a gap or an overlap."""
    return all(part.start == sum(other.count for other in parts[:rank]) for rank, part in enumerate(parts))
