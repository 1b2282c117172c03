"""How ranks find out whether they share a host, by sharing memory, and connect their mailboxes.

All ranks of the group call connect_mailboxes together; what is told to all travels by collectives:

    1. listen    each rank makes its memfd and a random secret, listens on a Unix socket whose abstract name is the
                 secret's hash, as anybody can see it, and tells the secret to all
    2. connect   each rank connects to all lower ones, and sends them their secret, its rank and its memfd
    3. accept    each rank accepts all higher ones, checks user and secret, and sends them its own memfd
    4. prove     each rank writes a random text into its mailbox and tells it to all, who look whether it is there

After each step all ranks learn of the first error of any, and then all give up. Ranks that merely have the same host
name or the same numbers fail in step 2, as do containers that share a host but no network namespace.
"""

import hashlib
import os
import secrets
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject
from dist_s2s.sharded.transport.shared_memory.mailboxes import HALF_BYTES, Mailboxes
from dist_s2s.sharded.transport.shared_memory.memory import check_memory, make_memory

_SETUP_SECONDS = 30.0
_SECRET_BYTES = 32
_HELLO = struct.Struct(f"<{_SECRET_BYTES}si")  # the listener's secret; the sender's rank
_HELLO_SECONDS = 2.0  # of a rank that has connected, and so has sent it already
_CREDENTIALS = struct.Struct("3i")  # Linux's struct ucred: process, user, group

_CONNECTING = Subject("the connecting of shared memory")

Result = TypeVar("Result")


class NoSharedMemoryError(RuntimeError):
    """The ranks of a group do not share memory. The text, the same on all ranks, says why."""


def connect_mailboxes(group: RankGroup, timeout: float) -> Mailboxes:
    """Return the mailboxes of the ranks of ``group``, which talk by collectives so far (collective).

    Args:
        timeout: seconds for which a rank waits for another one in a meeting.

    Raises:
        NoSharedMemoryError: on all ranks or on none.
    """
    connections = _Connections(group.rank, group.size)

    def together(step: Callable[[], Result]) -> Result:
        result, reason = None, ""
        try:
            result = step()
        except OSError as error:
            reason = f"rank {connections.rank}: {error}"
        reasons = group.gather_texts(reason, _CONNECTING)
        if any(reasons):
            raise NoSharedMemoryError(f"these ranks do not share memory; {next(filter(None, reasons))}")
        return result  # type: ignore[return-value]

    try:
        secret = together(connections.listen)
        all_secrets = group.gather_texts(secret, _CONNECTING)
        together(lambda: connections.connect_to_lower(all_secrets))
        together(lambda: connections.accept_higher(secret))
        mailboxes = together(lambda: connections.mailboxes(timeout))
        proof = secrets.token_hex(_SECRET_BYTES // 2)
        mailboxes.leave_proof(proof.encode())
        proofs = group.gather_texts(proof, _CONNECTING)
        together(lambda: mailboxes.check_proofs([text.encode() for text in proofs]))
    except NoSharedMemoryError:
        connections.close_sockets()
        raise
    finally:
        connections.close_the_rest()
    return mailboxes


class _Connections:
    """A rank's sockets and the memfds behind them, as they come together."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self._sockets: dict[int, socket.socket] = {}
        self._memories: dict[int, int] = {}
        self._listener: socket.socket | None = None

    def listen(self) -> str:
        """Listen on a socket of this rank; return its secret, which other ranks need to connect."""
        if sys.platform != "linux":
            raise OSError(f"shared memory needs Linux, but this is {sys.platform}")
        self._memories[self.rank] = make_memory(2 * HALF_BYTES)
        secret = secrets.token_hex(_SECRET_BYTES // 2)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(_SETUP_SECONDS)
        self._listener.bind(_address(secret))
        self._listener.listen(128 + self.world_size)  # strangers who wait must not keep ranks out
        return secret

    def connect_to_lower(self, all_secrets: Sequence[str]) -> None:
        """Connect to each lower rank, whose memfd comes when it has accepted."""
        for rank in range(self.rank):
            self._sockets[rank] = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(_SETUP_SECONDS)
            sock.connect(_address(all_secrets[rank]))
            hello = _HELLO.pack(all_secrets[rank].encode(), self.rank)
            socket.send_fds(sock, [hello], [self._memories[self.rank]])

    def accept_higher(self, secret: str) -> None:
        """Accept all higher ranks, which have connected; turn away others who may have found the socket."""
        assert self._listener is not None
        while len(self._sockets) < self.world_size - 1:
            sock, _ = self._listener.accept()
            hello, memories = _greeting(sock)
            given, rank = _HELLO.unpack(hello) if len(hello) == _HELLO.size else (b"", -1)
            if not (secrets.compare_digest(given, secret.encode()) and memories):
                sock.close()
                continue
            self._sockets[rank], self._memories[rank] = sock, memories[0]
            sock.settimeout(_SETUP_SECONDS)
            socket.send_fds(sock, [hello], [self._memories[self.rank]])

    def mailboxes(self, timeout: float) -> Mailboxes:
        """Return the mailboxes of all ranks, once the lower ones have sent their memfds."""
        for rank in range(self.rank):
            _, memories = _receive(self._sockets[rank])
            if not memories:
                raise OSError(f"rank {rank} sent no memory")
            self._memories[rank] = memories[0]
        for memory in self._memories.values():
            check_memory(memory, 2 * HALF_BYTES)
        return Mailboxes(self.rank, [self._memories[rank] for rank in range(self.world_size)], self._sockets, timeout)

    def close_sockets(self) -> None:
        """Close the sockets to other ranks."""
        for sock in self._sockets.values():
            sock.close()

    def close_the_rest(self) -> None:
        """Close what is no longer needed: mailboxes have descriptors of their own."""
        if self._listener is not None:
            self._listener.close()
        for memory in self._memories.values():
            os.close(memory)


def _address(secret: str) -> str:
    """Return an address in Linux's abstract namespace, of which nothing remains when the socket is closed."""
    return f"\0dist_s2s-{hashlib.blake2b(secret.encode(), digest_size=16).hexdigest()}"


def _greeting(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return what comes first over a new connection: nothing if it is another user's, or silent."""
    if _user_of(sock) != os.getuid():
        return b"", []
    sock.settimeout(_HELLO_SECONDS)
    try:
        return _receive(sock)
    except TimeoutError:
        return b"", []


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    message, memories, _, _ = socket.recv_fds(sock, _HELLO.size, 1)
    for memory in memories:
        os.set_inheritable(memory, False)
    return message, list(memories)


def _user_of(sock: socket.socket) -> int:
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)
