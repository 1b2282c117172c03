"""Memory that all ranks of a host see, and how they take turns with it.

Every rank has a mailbox: memory of its own (a memfd), mapped by all ranks. It has two halves. Exchange number e
uses half e modulo 2, in three steps:

    write    into one's own mailbox
    meet     each rank waits until all have written, see meetings.py
    read     from any mailbox, until this rank meets the others in the next exchange

A rank that writes in exchange e has met the others in exchange e - 1, so all of them have finished with e - 2: nobody
reads what is being overwritten, and one meeting is enough for an exchange.

A meeting also tells all ranks how large each mailbox is. Memory is allocated before it is written, so that a lack of it
is an error and never a SIGBUS. Nothing has a name in a file system: when the ranks are gone, however they went, so is
everything here.
"""

import mmap
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from dist_s2s.sharded.transport.shared_memory.meetings import NO_MEMORY, READY, Meetings, Message

HALF_BYTES = 4 << 30  # the most that a rank can post in one exchange; address space, not memory, until it is used
_GROWTH = 1.25  # at least, so that an exchange that grows slowly does not map memory anew each time
_PAGE_BYTES = 1 << 20  # halves grow by multiples of it
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; Python has no name for it


class Mailboxes:
    """This rank's view of all mailboxes: its own, which it writes, and the others', which it reads.

    Args:
        memories: the memfd of each rank, by rank.
        sockets: a stream to each other rank.
        timeout: seconds to wait for one.
    """

    def __init__(
        self, rank: int, memories: Sequence[int], sockets: Mapping[int, socket.socket], timeout: float
    ) -> None:
        self.rank, self.size = rank, len(memories)
        self._memory = os.dup(memories[rank])
        self._meetings = Meetings(rank, len(memories), sockets, timeout)
        self._maps = [mmap.mmap(memory, 2 * HALF_BYTES) for memory in memories]
        wholes = [torch.frombuffer(mapped, dtype=torch.uint8) for mapped in self._maps]
        self._halves = [[whole[:HALF_BYTES], whole[HALF_BYTES:]] for whole in wholes]
        self._capacities = [0] * self.size
        self._exchange = 0
        self._lacking = 0

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            os.close(self._memory)

    def leave_proof(self, text: bytes) -> None:
        """Write a text into this rank's mailbox that the others can look for."""
        self._maps[self.rank][: len(text)] = text

    def check_proofs(self, texts: Sequence[bytes]) -> None:
        """Raise OSError if a rank's text is not in the memory that is said to be its mailbox."""
        for rank, text in enumerate(texts):
            if self._maps[rank][: len(text)] != text:
                raise OSError(f"the memory that rank {rank} sent is not its mailbox")

    def to_read(self, rank: int) -> Tensor:
        """Return a rank's half of the exchange in which the ranks met last, uint8."""
        return self._halves[rank][1 - self._exchange % 2]

    def claim(self, num_bytes: int) -> Tensor:
        """Return this rank's half for the exchange that comes, uint8, with room for ``num_bytes``.

        If there is no memory, ordinary memory comes instead, and all ranks learn it when they meet.
        """
        if num_bytes > self._capacities[self.rank] and not self._grow(num_bytes):
            self._lacking = num_bytes
            return torch.empty(num_bytes, dtype=torch.uint8)
        return self._halves[self.rank][self._exchange % 2]

    def write_words(self, words: Sequence[int]) -> None:
        """Write integers of 8 bytes at the beginning of what was claimed; measured at a tenth of a tensor's time."""
        if not self._lacking:
            struct.pack_into(f"{len(words)}q", self._maps[self.rank], self._exchange % 2 * HALF_BYTES, *words)

    def read_words(self, rank: int, first: int, count: int) -> list[int]:
        """Return ``count`` of the integers that a rank wrote for the exchange in which the ranks met last."""
        begin = (1 - self._exchange % 2) * HALF_BYTES + 8 * first
        return list(struct.unpack_from(f"{count}q", self._maps[rank], begin))

    def meet(self, identity: int, subject: str, status: int = 0, note: int = 0) -> tuple[float, list[Message]]:
        """Wait until all ranks have written; return the seconds waited, and the message of each rank.

        Raises:
            RuntimeError: on all ranks, if one has no memory, and as Meetings.meet.
        """
        started = time.perf_counter()
        state, num_bytes = (NO_MEMORY, self._lacking) if self._lacking else (READY, self._capacities[self.rank])
        mine = Message(state, status, note, identity, num_bytes, time.monotonic())
        messages = self._meetings.meet(mine, subject)
        self._exchange += 1
        self._lacking = 0
        for rank, message in enumerate(messages):  # also if the exchange fails: all must know the same of each mailbox
            if message.state == READY and message.num_bytes != self._capacities[rank]:
                self._prefault(rank, message.num_bytes)
        _check_memories(messages)
        return time.perf_counter() - started, messages

    def pass_on(self, memory: int | None, subject: str) -> int | None:
        """Return rank 0's ``memory``, a descriptor, on all ranks, right after a meeting; see Meetings.pass_on."""
        return self._meetings.pass_on(memory, subject)

    def _grow(self, num_bytes: int) -> bool:
        old = self._capacities[self.rank]
        capacity = -(-int(max(num_bytes, old * _GROWTH)) // _PAGE_BYTES) * _PAGE_BYTES
        capacity = min(capacity, HALF_BYTES)
        if num_bytes > capacity:
            return False
        try:
            for half in range(2):
                os.posix_fallocate(self._memory, half * HALF_BYTES, capacity)
        except OSError:
            return False
        self._prefault(self.rank, capacity)
        return True

    def _prefault(self, rank: int, capacity: int) -> None:
        """Take note of a mailbox's new size, and map its pages now rather than when they are first touched."""
        old = self._capacities[rank]
        for half in range(2):
            with suppress(OSError):  # an older kernel, which then maps them one by one
                self._maps[rank].madvise(_POPULATE_WRITE, half * HALF_BYTES + old, capacity - old)
        self._capacities[rank] = capacity


def _check_memories(messages: Sequence[Message]) -> None:
    for rank, message in enumerate(messages):
        if message.state == NO_MEMORY:
            most = f"more than a mailbox can hold, which is {HALF_BYTES}"
            why = most if message.num_bytes > HALF_BYTES else "and there is no memory left"
            raise RuntimeError(
                f"rank {rank} needs {message.num_bytes} bytes of shared memory for an exchange, {why}; "
                "give it fewer ids at a time"
            )
