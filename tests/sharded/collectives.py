"""What the tables' transports use, watched: what is called, in which thread, and what unwritten memory holds."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from dist_s2s.sharded.mailboxes import Mailboxes
from torch import Tensor

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
def poisoned_buffers() -> Iterator[Counter[str]]:
    """Fills every buffer with what no table holds before anything is received into it; counts the elements by dtype.

    Likewise what is written of a mailbox: its bytes count as "own" if its owner writes them, as "rows" if others do.
    """
    elements: Counter[str] = Counter()
    all_to_all_single, all_gather = dist.all_to_all_single, dist.all_gather
    claim, make_room = Mailboxes.claim, Mailboxes.make_room

    def poison(buffer: Tensor) -> None:
        buffer.fill_(torch.nan if buffer.is_floating_point() else torch.iinfo(buffer.dtype).max)
        elements[str(buffer.dtype)] += buffer.numel()

    def poison_then_exchange(output: Tensor, *args: Any, **kwargs: Any) -> Any:
        poison(output)
        return all_to_all_single(output, *args, **kwargs)

    def poison_then_gather(outputs: list[Tensor], *args: Any, **kwargs: Any) -> Any:
        for output in outputs:
            poison(output)
        return all_gather(outputs, *args, **kwargs)

    def poison_mailbox(memory: Tensor, num_bytes: int, name: str) -> None:
        memory[:num_bytes] = 255  # NaN in every floating dtype, -1 in every integer
        elements[name] += num_bytes

    def claim_then_poison(mailboxes: Mailboxes, num_bytes: int) -> Tensor:
        memory = claim(mailboxes, num_bytes)
        poison_mailbox(memory, num_bytes, "own")
        return memory

    def make_room_then_poison(mailboxes: Mailboxes, num_bytes: Sequence[int]) -> bool:
        with patch.object(Mailboxes, "claim", claim):
            grown = make_room(mailboxes, num_bytes)
        poison_mailbox(mailboxes.to_write(mailboxes.rank), num_bytes[mailboxes.rank], "rows")
        for _ in range(2):  # two, so that the same half is the next, in which nobody may write before
            mailboxes.meet("growth")
        return grown

    with (
        patch.object(dist, "all_to_all_single", poison_then_exchange),
        patch.object(dist, "all_gather", poison_then_gather),
        patch.object(Mailboxes, "claim", claim_then_poison),
        patch.object(Mailboxes, "make_room", make_room_then_poison),
    ):
        yield elements
