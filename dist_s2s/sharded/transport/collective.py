"""Exchanges by torch.distributed's all-to-all.

    1. header   all_to_all of 1 KiB to each rank: subject, status and note, numbers, and which rows are for you. It has
                the same size in every exchange, so ranks that have come to different ones find that out.
    2. blocks   one all_to_all for all blocks, if nobody is in trouble

A message holds the first block's rows for a rank, then the second's, and so on. No rank assumes a size: every count is
received before the data that it describes, be it in the header or in an earlier exchange of the same call.
"""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.transport.missing_ranks import missing_ranks_named
from dist_s2s.sharded.transport.protocol import Block, ExchangeStatistics, Parcel, PeerRows, Received

_HEADER_WORDS = 128  # int64
_FIXED_WORDS = 3  # identity, status, note


class CollectiveTransport:
    """Collectives of ``group``, of any backend; ``device`` is where blocks are."""

    name = "collective"

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.statistics = ExchangeStatistics()
        self._is_interrupted = False

    def exchange(self, parcel: Parcel) -> Received:
        """Exchange parcels in two all_to_alls, or in one if there are no blocks or their sizes are known."""
        if self._is_interrupted:  # the others wait for what this rank did not send, and would take this for it
            raise RuntimeError("an exchange of the table was interrupted; build the table anew, in a new process group")
        self._is_interrupted = True
        received = self._exchange(parcel)
        self._is_interrupted = False
        return received

    def _exchange(self, parcel: Parcel) -> Received:
        widths = [block.width for block in parcel.blocks]
        if parcel.expected is not None:
            incoming, tensors = [list(rows) for rows in parcel.expected], _tensors(parcel.blocks)
            same = [0] * self.size
            return Received(same, same, same, [], incoming, self._deliver(tensors, parcel.outgoing, incoming, widths))
        words = self._header(parcel)
        received = torch.empty_like(words[:, :_HEADER_WORDS])
        arrival = self._start(received, words[:, :_HEADER_WORDS].contiguous())
        # What is to be sent is made while headers travel. A rank in trouble has nothing to send.
        tensors = [] if parcel.status else _tensors(parcel.blocks)
        self._finish(arrival)
        identities, statuses, notes = received[:, :_FIXED_WORDS].t().tolist()
        result = Received(identities, statuses, notes)
        if result.is_refused:
            return result
        if words.shape[1] > _HEADER_WORDS:
            rest = torch.empty_like(words[:, _HEADER_WORDS:])
            self._finish(self._start(rest, words[:, _HEADER_WORDS:].contiguous()))
            received = torch.cat((received, rest), dim=1)
        rows = received[:, _FIXED_WORDS:].tolist()
        count = len(parcel.numbers)
        numbers = [row[:count] for row in rows]
        incoming = [[PeerRows(*row[count + 3 * b : count + 3 * b + 3]) for row in rows] for b in range(len(widths))]
        blocks = self._deliver(tensors, parcel.outgoing, incoming, widths) if widths else []
        return Received(identities, statuses, notes, numbers, incoming, blocks)

    def _header(self, parcel: Parcel) -> Tensor:
        """Return the words for each rank, int64 [ranks, at least _HEADER_WORDS]."""
        fixed = [parcel.subject.identity, parcel.status, parcel.note, *parcel.numbers]
        words = [[*fixed, *(w for rows in parcel.outgoing for w in rows[rank])] for rank in range(self.size)]
        padding = [0] * max(0, _HEADER_WORDS - len(words[0]))
        return torch.tensor([row + padding for row in words], device=self.device)

    def _deliver(
        self,
        tensors: Sequence[Tensor],
        outgoing: Sequence[Sequence[PeerRows]],
        incoming: Sequence[Sequence[PeerRows]],
        widths: Sequence[int],
    ) -> list[Tensor]:
        """Exchange the rows of blocks of one or more dtypes: one all_to_all for each dtype."""
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
        self.statistics.bytes_sent += message.numel() * message.element_size()
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
