"""Memory that all ranks of a host see, and the meetings at which they learn that it has been filled.

Every rank has a mailbox: memory of its own (a memfd), mapped by all ranks. It has two halves. Exchange number e uses
half e modulo 2, in three steps:

    write    into one's own mailbox, or into another's, as the exchange's protocol says
    meet     each rank tells each other one over a Unix socket that it has written, and waits for all the others
    read     from any mailbox, until this rank meets the others in the next exchange

A rank that writes in exchange e has met the others in exchange e - 1, so all of them have finished with e - 2: nobody
reads what is being overwritten, and one meeting is enough for an exchange.

A message holds the sender's state, the operation that it takes part in, and how large its mailbox is. A rank that dies
closes its sockets, which every other one notices at once; a rank that has noticed tells the others who it was before it
gives up, lest they take it for the dead one.

Memory is allocated before it is written, so that a lack of it is an error and never a SIGBUS. Nothing has a name in a
file system: when the ranks are gone, however they went, so is everything here.
"""

import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

HALF_BYTES = 4 << 30  # the most that a rank can post in one exchange; address space, not memory, until it is used
_GROWTH = 1.25  # at least, so that an exchange that grows slowly does not map memory anew each time
_SPINS = 20  # tries before a rank goes to sleep: waking it up takes longer, where each rank has a core to itself
_PAGE_BYTES = 1 << 20  # halves grow by multiples of it
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; Python has no name for it

OPERATIONS = ("requests", "growth", "rows", "gradients", "gather", "gather_rows", "return_rows")
_MESSAGE = struct.Struct("<iiqd")  # of a Message
_READY, _NO_MEMORY, _GONE = range(3)


class Message(NamedTuple):
    """What a rank tells each other one in a meeting: its state, the operation, its mailbox's size, and the time.

    If it has no memory the size is what it would need; if it knows of a rank that is gone the operation is that rank.
    The clock is the host's, so that a rank can see that it has come too late.
    """

    state: int
    operation: int
    num_bytes: int
    seconds: float


def make_memory() -> int:
    """A new memfd of two empty halves, of a size that nobody can change any more. Raises OSError."""
    import fcntl

    memory = os.memfd_create("dist_s2s-mailbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, 2 * HALF_BYTES)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return memory


def check_memory(memory: int) -> None:
    """Raises OSError if another rank's memfd could shrink, or has another size: to read it might then kill us."""
    import fcntl

    seals, size = fcntl.fcntl(memory, fcntl.F_GET_SEALS), os.fstat(memory).st_size
    if not seals & fcntl.F_SEAL_SHRINK or size != 2 * HALF_BYTES:
        raise OSError(f"a mailbox must be sealed and have {2 * HALF_BYTES} bytes, but has seals {seals}, {size} bytes")


class Mailboxes:
    """This rank's view of all mailboxes.

    memories: the memfd of each rank, by rank. sockets: a stream to each other rank. timeout: seconds to wait for one.
    """

    def __init__(
        self, rank: int, memories: Sequence[int], sockets: Mapping[int, socket.socket], timeout: float
    ) -> None:
        self.rank, self.world_size = rank, len(memories)
        self._memory, self._sockets, self._timeout = os.dup(memories[rank]), dict(sockets), timeout
        self._maps = [mmap.mmap(memory, 2 * HALF_BYTES) for memory in memories]
        wholes = [torch.frombuffer(mapped, dtype=torch.uint8) for mapped in self._maps]
        self._halves = [[whole[:HALF_BYTES], whole[HALF_BYTES:]] for whole in wholes]
        self._capacities = [0] * self.world_size
        self._spins = _SPINS if self.world_size <= len(os.sched_getaffinity(0)) else 0
        self._exchange = 0
        self._lacking = 0
        self._end = ""  # what any further exchange raises
        for sock in self._sockets.values():
            sock.setblocking(True)

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

    def meet(self, operation: str) -> float:
        """Waits until all ranks have written; returns the seconds waited.

        Raises RuntimeError on all ranks if one has no memory, if one takes part in another operation, if one is gone,
        and if one does not come in time. After the latter two there is no further exchange: a message that nobody has
        waited for would be taken for one of that.
        """
        if self._end:
            raise RuntimeError(self._end)
        self._end = "an exchange of the table was interrupted; build the table anew, in a new process group"
        started = time.perf_counter()
        state = _NO_MEMORY if self._lacking else _READY
        size = self._lacking or self._capacities[self.rank]
        mine = Message(state, OPERATIONS.index(operation), size, time.monotonic())
        self._tell(mine)
        answers = {self.rank: mine} | self._answers(operation)
        last = min(answer.seconds for answer in answers.values()) + self._timeout
        if late := sorted(rank for rank, answer in answers.items() if answer.seconds > last):
            self._raise_late(late, operation)  # the first has given up waiting for them
        self._end = ""
        self._exchange += 1
        self._lacking = 0
        for rank, answer in answers.items():  # also if the exchange fails: all must know the same of each mailbox
            if answer.state == _READY and answer.num_bytes != self._capacities[rank]:
                self._prefault(rank, answer.num_bytes)
        if any(answer[:2] != (_READY, mine.operation) for answer in answers.values()):
            self._raise_problem(answers)
        return time.perf_counter() - started

    def _tell(self, message: Message) -> None:
        packed = _MESSAGE.pack(*message)
        for sock in self._sockets.values():
            # A rank that is gone is noticed when it is waited for; it may have said why it went.
            with suppress(BrokenPipeError, ConnectionResetError):
                sock.send(packed, socket.MSG_NOSIGNAL)

    def _answers(self, operation: str) -> dict[int, Message]:
        """The message of each other rank; raises RuntimeError if one is gone or late."""
        answers: dict[int, Message] = {}
        waiting = {sock.fileno(): rank for rank, sock in self._sockets.items()}
        deadline = time.monotonic() + self._timeout
        for _ in range(self._spins):
            for descriptor, rank in list(waiting.items()):
                with suppress(BlockingIOError):
                    answers[rank] = self._receive(rank, operation, socket.MSG_DONTWAIT)
                    del waiting[descriptor]
            if not waiting:
                break
        while waiting:
            poller = select.poll()  # of all at once: whoever dies is noticed, whoever else is late
            for descriptor in waiting:
                poller.register(descriptor, select.POLLIN)
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                self._raise_late(sorted(waiting.values()), operation)
            for descriptor, _ in ready:
                rank = waiting.pop(descriptor)
                answers[rank] = self._receive(rank, operation, socket.MSG_WAITALL)
        return answers

    def _receive(self, rank: int, operation: str, flag: int) -> Message:
        try:
            packed = self._sockets[rank].recv(_MESSAGE.size, flag)
        except ConnectionResetError:
            packed = b""
        message = Message(*_MESSAGE.unpack(packed)) if packed else Message(_GONE, rank, 0, 0.0)
        if message.state == _GONE:
            self._tell(message)
            self._end = (
                f"rank {message.operation} of {self.world_size} left in the middle of an exchange of the table "
                f"({operation}): it died, or raised an error of its own"
            )
            raise RuntimeError(self._end)
        return message

    def _raise_late(self, ranks: Sequence[int], operation: str) -> NoReturn:
        names = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        self._end = (
            f"{names} of {self.world_size} did not take part in an exchange of the table ({operation}) within "
            f"{self._timeout:g} s; all ranks must call the table equally often"
        )
        raise RuntimeError(self._end)

    def _raise_problem(self, answers: Mapping[int, Message]) -> NoReturn:
        for rank, answer in sorted(answers.items()):
            if answer.state == _NO_MEMORY:
                most = f"more than a mailbox can hold, which is {HALF_BYTES}"
                why = most if answer.num_bytes > HALF_BYTES else "and there is no memory left"
                raise RuntimeError(
                    f"rank {rank} needs {answer.num_bytes} bytes of shared memory for an exchange, {why}; "
                    "give it fewer ids at a time"
                )
        operations = ", ".join(f"{OPERATIONS[answers[rank].operation]} on rank {rank}" for rank in sorted(answers))
        raise RuntimeError(f"all ranks must take part in the same exchange of the table, but it is {operations}")

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
