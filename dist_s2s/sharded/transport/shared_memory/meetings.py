"""Meetings of the ranks of a host: each tells each other one that it has come, and waits for all the others.

A message goes over a Unix socket to each other rank. It says which exchange the sender has come to, its status, the
size of its mailbox, and the time. A rank that dies closes its sockets, which every other one notices at once; a rank
that has noticed tells the others who it was before it gives up, lest they take it for the dead one.
"""

import os
import select
import socket
import struct
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

READY, NO_MEMORY, _GONE = range(3)
_MESSAGE = struct.Struct("<iiqqqd")  # of a Message
_SPINS = 20  # tries before a rank goes to sleep: waking it up takes longer, where each rank has a core to itself


class Message(NamedTuple):
    """What a rank tells each other one.

    Attributes:
        state: READY, NO_MEMORY, or that a rank is gone.
        status, note, identity: of the sender's Parcel. If a rank is gone the note is its number.
        num_bytes: the size of the sender's mailbox; if it has no memory, what it would need.
        seconds: the host's clock, which tells a rank that it has come too late.
    """

    state: int
    status: int
    note: int
    identity: int
    num_bytes: int
    seconds: float


class Meetings:
    """One rank's part in meetings.

    Args:
        sockets: a stream to each other rank; this object takes them over.
        timeout: seconds to wait for another rank.
    """

    def __init__(self, rank: int, world_size: int, sockets: Mapping[int, socket.socket], timeout: float) -> None:
        self.rank, self.world_size = rank, world_size
        self._sockets, self._timeout = dict(sockets), timeout
        self._spins = _SPINS if world_size <= len(os.sched_getaffinity(0)) else 0
        self._end = ""  # what any further meeting raises
        for sock in self._sockets.values():
            sock.setblocking(True)
        _all.add(self)

    def close(self) -> None:
        """Close the sockets, which the other ranks take for this rank's death."""
        for sock in self._sockets.values():
            sock.close()

    def __del__(self) -> None:
        self.close()

    def meet(self, mine: Message, subject: str) -> list[Message]:
        """Return what all ranks have to tell, by rank, when all have come.

        Args:
            subject: names the exchange in errors.

        Raises:
            RuntimeError: on all ranks, if one is gone or does not come in time. After that there is no further meeting:
                a message that nobody has waited for would be taken for one of that.
        """
        if self._end:
            raise RuntimeError(self._end)
        self._end = "an exchange of the table was interrupted; build the table anew, in a new process group"
        self._tell(mine)
        messages = {self.rank: mine} | self._answers(subject)
        last = min(message.seconds for message in messages.values()) + self._timeout
        if late := sorted(rank for rank, message in messages.items() if message.seconds > last):
            self._raise_late(late, subject)  # the first has given up waiting for them
        self._end = ""
        return [messages[rank] for rank in range(self.world_size)]

    def pass_on(self, descriptor: int | None, subject: str) -> int | None:
        """Return rank 0's open file as a descriptor of one's own, or None on a rank that can have no more of them.

        For use right after a meeting.

        Raises:
            RuntimeError: as ``meet``, but only on the ranks that wait for rank 0.
        """
        if self.rank == 0:
            assert descriptor is not None
            self._tell(Message(READY, 0, 0, 0, 0, time.monotonic()), [descriptor])
            return descriptor
        sock, packed = self._sockets[0], b""
        descriptors: list[int] = []
        sock.settimeout(self._timeout)
        try:
            with suppress(ConnectionResetError):
                packed, descriptors, _, _ = socket.recv_fds(sock, _MESSAGE.size, 1)
        except TimeoutError:
            self._raise_late([0], subject)
        finally:
            sock.setblocking(True)
        for each in descriptors:
            os.set_inheritable(each, False)
        self._message_of(0, subject, packed)
        return descriptors[0] if descriptors else None

    def _tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        packed = _MESSAGE.pack(*message)
        for sock in self._sockets.values():
            # A rank that is gone is noticed when it is waited for; it may have said why it went.
            with suppress(BrokenPipeError, ConnectionResetError):
                if descriptors:
                    socket.send_fds(sock, [packed], descriptors)
                else:
                    sock.send(packed, socket.MSG_NOSIGNAL)

    def _answers(self, subject: str) -> dict[int, Message]:
        """Return the message of each other rank; raise RuntimeError if one is gone or late."""
        answers: dict[int, Message] = {}
        waiting = {sock.fileno(): rank for rank, sock in self._sockets.items()}
        deadline = time.monotonic() + self._timeout
        for _ in range(self._spins):
            for descriptor, rank in list(waiting.items()):
                with suppress(BlockingIOError):
                    answers[rank] = self._receive(rank, subject, socket.MSG_DONTWAIT)
                    del waiting[descriptor]
            if not waiting:
                break
        while waiting:
            poller = select.poll()  # of all at once: whoever dies is noticed, whoever else is late
            for descriptor in waiting:
                poller.register(descriptor, select.POLLIN)
            ready = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                self._raise_late(sorted(waiting.values()), subject)
            for descriptor, _ in ready:
                rank = waiting.pop(descriptor)
                answers[rank] = self._receive(rank, subject, socket.MSG_WAITALL)
        return answers

    def _receive(self, rank: int, subject: str, flag: int) -> Message:
        try:
            packed = self._sockets[rank].recv(_MESSAGE.size, flag)
        except ConnectionResetError:
            packed = b""
        return self._message_of(rank, subject, packed)

    def _message_of(self, rank: int, subject: str, packed: bytes) -> Message:
        """Return what a rank has sent; raise RuntimeError if that is nothing, or that another rank is gone."""
        message = Message(*_MESSAGE.unpack(packed)) if packed else Message(_GONE, 0, rank, 0, 0, 0.0)
        if message.state == _GONE:
            self._tell(message)
            self._end = (
                f"rank {message.note} of {self.world_size} left in the middle of an exchange of the table "
                f"({subject}): it died, or raised an error of its own"
            )
            raise RuntimeError(self._end)
        return message

    def _raise_late(self, ranks: Sequence[int], subject: str) -> NoReturn:
        names = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        self._end = (
            f"{names} of {self.world_size} did not take part in an exchange of the table ({subject}) within "
            f"{self._timeout:g} s; all ranks must call the table equally often"
        )
        raise RuntimeError(self._end)


_all: weakref.WeakSet[Meetings] = weakref.WeakSet()


def _close_all() -> None:
    for meetings in list(_all):
        meetings.close()


# A child, such as a DataLoader's worker, would keep the sockets open, and hide its parent's death from the other ranks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
