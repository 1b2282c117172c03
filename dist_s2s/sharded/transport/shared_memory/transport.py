"""Exchanges through memory that ranks of one host share; see mailboxes.py for how ranks take turns with it.

    write   numbers, then for each rank which rows of each block are for it, then the blocks, into one's own mailbox
    meet    subject, status and note travel in the message of the meeting
    read    one's own part of every rank's blocks, from where its words say that it lies

So an exchange is one meeting, whatever it carries; without blocks and numbers nothing is written at all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.transport.layout import places, view
from dist_s2s.sharded.transport.protocol import Block, ExchangeStatistics, Parcel, PeerRows, Received
from dist_s2s.sharded.transport.shared_memory.mailboxes import Mailboxes


class SharedMemoryTransport:
    """Mailboxes of CPU ranks on one host."""

    name = "shared_memory"

    def __init__(self, mailboxes: Mailboxes) -> None:
        self.mailboxes = mailboxes
        self.rank, self.size = mailboxes.rank, mailboxes.size
        self.statistics = ExchangeStatistics()

    def exchange(self, parcel: Parcel) -> Received:
        """Exchange parcels in one meeting."""
        num_words = parcel.num_words
        if num_words and not parcel.status:
            self._write(parcel, num_words)
        subject = parcel.subject
        seconds, messages = self.mailboxes.meet(subject.identity, subject.text, parcel.status, parcel.note)
        self.statistics.seconds += seconds
        self.statistics.collectives += 1
        header = ([m.identity for m in messages], [m.status for m in messages], [m.note for m in messages])
        received = Received(*header)
        if received.is_refused or not num_words:
            return received if received.is_refused else Received(*header, [[]] * self.size)
        words = [self.mailboxes.read_words(rank, self.rank * num_words, num_words) for rank in range(self.size)]
        numbers, incoming = parcel.read_words(words)
        return Received(*header, numbers, incoming, self._read(parcel.blocks, incoming, num_words))

    def _write(self, parcel: Parcel, num_words: int) -> None:
        begins, end = places(self.size * num_words * 8, [block.num_bytes for block in parcel.blocks])
        memory = self.mailboxes.claim(end)
        self.statistics.bytes_sent += end
        self.mailboxes.write_words([word for rank in range(self.size) for word in parcel.words(rank)])
        for block, place in zip(parcel.blocks, begins, strict=True):
            block.write(view(memory, place, (block.num_rows, block.width), block.dtype))

    def _read(self, blocks: Sequence[Block], incoming: Sequence[Sequence[PeerRows]], num_words: int) -> list[Tensor]:
        """Return this rank's rows of each block, in tensors of their own."""
        pieces: list[list[Tensor]] = [[] for _ in blocks]
        for rank in range(self.size):
            row_bytes = [block.width * block.dtype.itemsize for block in blocks]
            sizes = [rows[rank].total * size for rows, size in zip(incoming, row_bytes, strict=True)]
            begins, _ = places(self.size * num_words * 8, sizes)
            memory = self.mailboxes.to_read(rank)
            for block, rows, place, size, found in zip(blocks, incoming, begins, row_bytes, pieces, strict=True):
                count, start, _ = rows[rank]
                found.append(view(memory, place + start * size, (count, block.width), block.dtype))
        return [torch.cat(found) for found in pieces]
