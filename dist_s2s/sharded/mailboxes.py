"""Memory that all ranks of a host see, and how they take turns with it.

Every rank has a mailbox: memory of its own (a memfd), mapped by all ranks. It has two halves. Exchange number e uses
half e modulo 2, in three steps:

    write    into one's own mailbox, or into another's, as the exchange's protocol says
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
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

import torch
from torch import Tensor

from dist_s2s.sharded.meetings import NO_MEMORY, OPERATIONS, READY, Meetings, Message

HALF_BYTES = 4 << 30  # the most that a rank can post in one exchange; address space, not memory, until it is used
_GROWTH = 1.25  # at least, so that an exchange that grows slowly does not map memory anew each time
_PAGE_BYTES = 1 << 20  # halves grow by multiples of it
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; Python has no name for it


def make_memory(num_bytes: int) -> int:
    """A new, empty memfd of a size that nobody can change any more. Raises OSError."""
    import fcntl

    memory = os.memfd_create("dist_s2s", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, num_bytes)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(memory)
        raise
    return memory


def check_memory(memory: int, num_bytes: int) -> None:
    """Raises OSError if another rank's memfd could shrink, or has another size: to read it might then kill us."""
    import fcntl

    seals, size = fcntl.fcntl(memory, fcntl.F_GET_SEALS), os.fstat(memory).st_size
    if not seals & fcntl.F_SEAL_SHRINK or size != num_bytes:
        raise OSError(f"shared memory must be sealed and have {num_bytes} bytes, but has seals {seals}, {size} bytes")


class Mailboxes:
    """This rank's view of all mailboxes.

    memories: the memfd of each rank, by rank. sockets: a stream to each other rank. timeout: seconds to wait for one.
    """

    def __init__(
        self, rank: int, memories: Sequence[int], sockets: Mapping[int, socket.socket], timeout: float
    ) -> None:
        self.rank, self.world_size = rank, len(memories)
        self._memory = os.dup(memories[rank])
        self._meetings = Meetings(rank, len(memories), sockets, timeout)
        self._maps = [mmap.mmap(memory, 2 * HALF_BYTES) for memory in memories]
        wholes = [torch.frombuffer(mapped, dtype=torch.uint8) for mapped in self._maps]
        self._halves = [[whole[:HALF_BYTES], whole[HALF_BYTES:]] for whole in wholes]
        self._capacities = [0] * self.world_size
        self._exchange = 0
        self._lacking = 0

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            os.close(self._memory)

    def leave_proof(self, text: bytes) -> None:
        """Writes a text into this rank's mailbox that the others can look for."""
        self._maps[self.rank][: len(text)] = text

    def check_proofs(self, texts: Sequence[bytes]) -> None:
        """Raises OSError if a rank's text is not in the memory that is said to be its mailbox."""
        for rank, text in enumerate(texts):
            if self._maps[rank][: len(text)] != text:
                raise OSError(f"the memory that rank {rank} sent is not its mailbox")

    def to_write(self, rank: int) -> Tensor:
        """A rank's half for the exchange that comes, uint8. All of a message must be within what was claimed of it."""
        return self._halves[rank][self._exchange % 2]

    def to_read(self, rank: int) -> Tensor:
        """A rank's half of the exchange in which the ranks met last, uint8."""
        return self._halves[rank][1 - self._exchange % 2]

    def claim(self, num_bytes: int) -> Tensor:
        """This rank's own half for the exchange that comes, with room for ``num_bytes``.

        If there is no memory, ordinary memory comes instead, and all ranks learn it when they meet.
        """
        if num_bytes > self._capacities[self.rank] and not self._grow(num_bytes):
            self._lacking = num_bytes
            return torch.empty(num_bytes, dtype=torch.uint8)
        return self.to_write(self.rank)

    def make_room(self, num_bytes: Sequence[int]) -> bool:
        """Sees to room for so many bytes in each rank's mailbox; the same numbers on all ranks.

        Returns whether one had to grow, which takes a meeting.
        """
        if all(wanted <= capacity for wanted, capacity in zip(num_bytes, self._capacities, strict=True)):
            return False
        self.claim(num_bytes[self.rank])
        self.meet("growth")
        return True

    def meet(self, operation: str, status: int = 0) -> tuple[float, list[int]]:
        """Waits until all ranks have written; returns the seconds waited, and the status of each rank.

        Raises RuntimeError on all ranks if one has no memory, or takes part in another operation, and as Meetings.meet.
        """
        started = time.perf_counter()
        state = NO_MEMORY if self._lacking else READY
        messages = self._meetings.meet(state, operation, status, self._lacking or self._capacities[self.rank])
        self._exchange += 1
        self._lacking = 0
        for rank, message in messages.items():  # also if the exchange fails: all must know the same of each mailbox
            if message.state == READY and message.num_bytes != self._capacities[rank]:
                self._prefault(rank, message.num_bytes)
        if len({message.operation for message in messages.values()}) > 1 or any(m.state for m in messages.values()):
            _raise_problem(messages)
        return time.perf_counter() - started, [messages[rank].status for rank in range(self.world_size)]

    def pass_on(self, memory: int | None, operation: str) -> int | None:
        """Rank 0's ``memory``, a descriptor, on all ranks, right after a meeting (collective); see Meetings.pass_on."""
        return self._meetings.pass_on(memory, operation)

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
        """Takes note of a mailbox's new size, and maps its pages now rather than when they are first touched."""
        old = self._capacities[rank]
        for half in range(2):
            with suppress(OSError):  # an older kernel, which then maps them one by one
                self._maps[rank].madvise(_POPULATE_WRITE, half * HALF_BYTES + old, capacity - old)
        self._capacities[rank] = capacity


def _raise_problem(messages: Mapping[int, Message]) -> NoReturn:
    for rank, message in sorted(messages.items()):
        if message.state == NO_MEMORY:
            most = f"more than a mailbox can hold, which is {HALF_BYTES}"
            why = most if message.num_bytes > HALF_BYTES else "and there is no memory left"
            raise RuntimeError(
                f"rank {rank} needs {message.num_bytes} bytes of shared memory for an exchange, {why}; "
                "give it fewer ids at a time"
            )
    operations = ", ".join(f"{OPERATIONS[messages[rank].operation]} on rank {rank}" for rank in sorted(messages))
    raise RuntimeError(f"all ranks must take part in the same exchange of the table, but it is {operations}")
