"""What the tables' transports use, watched: what is called, in which thread, and what unwritten memory holds."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.transport import collective
from dist_s2s.sharded.transport.shared_memory.mailboxes import Mailboxes

_COLLECTIVES = (
    "all_to_all_single",
    "all_gather",
    "all_reduce",
    "reduce_scatter_tensor",
    "all_gather_into_tensor",
    "broadcast",
    "scatter",
    "barrier",
)


@contextmanager
def counted_collectives() -> Iterator[dict[str, Counter[str]]]:
    """How often each collective is called, and "meet", which shared memory has instead.

    {"main": of the main thread, "background": of all others}
    """
    counts: dict[str, Counter[str]] = {"main": Counter(), "background": Counter()}

    def counting(name: str, collective: Callable[..., Any]) -> Callable[..., Any]:
        def count_then_call(*args: Any, **kwargs: Any) -> Any:
            thread = "main" if threading.current_thread() is threading.main_thread() else "background"
            counts[thread][name] += 1
            return collective(*args, **kwargs)

        return count_then_call

    with ExitStack() as stack:
        for name in _COLLECTIVES:
            stack.enter_context(patch.object(dist, name, counting(name, getattr(dist, name))))
        stack.enter_context(patch.object(Mailboxes, "meet", counting("meet", Mailboxes.meet)))
        yield counts


@contextmanager
def first_messages_of(num_bytes: int) -> Iterator[None]:
    """First messages of so many bytes, in which the rows of a small test find no room, and with 32 no word does."""
    with patch.multiple(collective, FIRST_BYTES=0, LEAST_BYTES=num_bytes):
        yield


@contextmanager
def poisoned_buffers() -> Iterator[Counter[str]]:
    """Fills every buffer with what no table holds before anything is received into it; counts the elements by dtype.

    Likewise a mailbox, before its owner writes into it: its bytes count as "mailbox".
    """
    elements: Counter[str] = Counter()
    all_to_all_single, claim = dist.all_to_all_single, Mailboxes.claim

    def poison_then_exchange(output: Tensor, *args: Any, **kwargs: Any) -> Any:
        output.fill_(torch.nan if output.is_floating_point() else torch.iinfo(output.dtype).max)
        elements[str(output.dtype)] += output.numel()
        return all_to_all_single(output, *args, **kwargs)

    def claim_then_poison(mailboxes: Mailboxes, num_bytes: int) -> Tensor:
        memory = claim(mailboxes, num_bytes)
        memory[:num_bytes] = 255  # NaN in every floating dtype, -1 in every integer
        elements["mailbox"] += num_bytes
        return memory

    with (
        patch.object(dist, "all_to_all_single", poison_then_exchange),
        patch.object(Mailboxes, "claim", claim_then_poison),
    ):
        yield elements
