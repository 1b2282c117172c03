"""Ranks that cannot share memory find out together; strangers and memory that could kill a reader are turned away."""

import errno
import fcntl
import gc
import mmap
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.transport.shared_memory import connect, mailboxes
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS
from tests.sharded.remains import descriptors, mapped_memory

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
V, D = 131, 4


def failing(target: Any, name: str, number: int) -> AbstractContextManager[Any]:
    return patch.object(target, name, side_effect=OSError(number, os.strerror(number)))


def memory_that(seals: int, num_bytes: int) -> AbstractContextManager[Any]:
    """In place of a mailbox memory of another size, or without seals."""

    def make(_: int) -> int:
        memory = os.memfd_create("dist_s2s", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, num_bytes)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        return memory

    return patch.object(connect, "make_memory", make)


WHOLE, SEALS = 2 * mailboxes.HALF_BYTES, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
REFUSED = f"shared memory must be sealed and have {WHOLE} bytes, but has seals"
# What rank 1 cannot do, and which rank says so.
TROUBLES: dict[str, tuple[Callable[[], AbstractContextManager[Any]], str]] = {
    "no memfd": (lambda: failing(os, "memfd_create", errno.ENOSYS), "rank 1: [Errno 38] Function not implemented"),
    "not Linux": (
        lambda: patch.object(sys, "platform", "darwin"),
        "rank 1: shared memory needs Linux, but this is darwin",
    ),
    "no name": (lambda: failing(socket.socket, "bind", errno.EACCES), "rank 1: [Errno 13] Permission denied"),
    "no way": (lambda: failing(socket.socket, "connect", errno.ECONNREFUSED), "rank 1: [Errno 111] Connection refused"),
    "nobody comes": (
        lambda: failing(socket.socket, "accept", errno.ETIMEDOUT),
        "rank 1: [Errno 110] Connection timed out",
    ),
    "no room": (lambda: failing(mmap, "mmap", errno.ENOMEM), "rank 1: [Errno 12] Cannot allocate memory"),
    "unsealed": (lambda: memory_that(0, WHOLE), f"rank 0: {REFUSED} 0, {WHOLE} bytes"),
    "short": (lambda: memory_that(SEALS, 4096), f"rank 0: {REFUSED} {SEALS}, 4096 bytes"),
    "other memory": (
        lambda: patch.object(mailboxes.Mailboxes, "leave_proof"),
        "rank 0: the memory that rank 1 sent is not its mailbox",
    ),
}


def build_in_trouble(_: dist.ProcessGroup, trouble: str) -> str:
    """The error of a table that insists on shared memory; one that does not works without. Nothing is left of them."""
    before = descriptors(), mapped_memory()
    group, rank = dist.new_group(), dist.get_rank()
    with TROUBLES[trouble][0]() if rank == 1 else nullcontext():
        with pytest.raises(ValueError, match="share memory") as error:
            DistributedEmbedding(V, D, process_group=group, transport="shared_memory")
        table = DistributedEmbedding(V, D, process_group=group, seed=0)
    assert table.transport.name == "collective"
    assert DistributedEmbedding(V, D, process_group=group).transport is table.transport  # while it is in use
    assert table(torch.tensor([rank])).shape == (1, D)
    del table
    assert DistributedEmbedding(V, D, process_group=group).transport.name == "shared_memory"  # it is tried again
    dist.barrier()
    dist.destroy_process_group(group)
    text = str(error.value)
    del group, error
    gc.collect()
    assert mapped_memory() <= before[1]
    assert descriptors() <= before[0]
    return text


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_of_one_rank_is_an_error_of_all_or_of_none(ranks: RankPool, trouble: str):
    message = f"these ranks do not share memory; {TROUBLES[trouble][1]}; choose the transport auto or collective"
    assert ranks.run(build_in_trouble, trouble) == [message] * 4


def connect_after_strangers(_: dist.ProcessGroup) -> list[bytes]:
    """What strangers hear who come to rank 0 before the ranks do: nothing; and they get no memory."""
    strangers = []
    connect_to_lower = connect._Connections.connect_to_lower

    def come_with_strangers(self: Any, names: Sequence[str]) -> None:
        memory = os.memfd_create("stranger")
        named = connect._HELLO.pack(names[0].encode(), 1)
        wrongly_named = connect._HELLO.pack(names[1].encode(), 1)
        for hello, memories in ((named, []), (wrongly_named, [memory]), (b"hello", [memory]), (b"", [])):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(connect._address(names[0]))
            socket.send_fds(sock, [hello], memories)
            strangers.append(sock)
        strangers[-1].shutdown(socket.SHUT_WR)
        os.close(memory)
        connect_to_lower(self, names)

    group, heard = dist.new_group(), []
    come = patch.object(connect._Connections, "connect_to_lower", come_with_strangers)
    with come if dist.get_rank() == 1 else nullcontext():
        table = DistributedEmbedding(V, D, process_group=group, seed=0, transport="shared_memory")
    assert table(torch.arange(V)).shape == (V, D)
    for sock in strangers:
        text, memories, *_ = socket.recv_fds(sock, 64, 1)
        assert not memories
        heard.append(text)
        sock.close()
    dist.destroy_process_group(group)
    return heard


def test_strangers_are_turned_away(ranks: RankPool):
    assert ranks.run(connect_after_strangers) == [[], [b""] * 4, [], []]
