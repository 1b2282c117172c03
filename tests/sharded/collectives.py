"""torch.distributed as the tables use it, watched: what is called, in which thread, and what unwritten memory holds."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
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
    """How often each collective is called: {"main": of the main thread, "background": of all others}."""
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
        yield counts


@contextmanager
def poisoned_buffers() -> Iterator[Counter[str]]:
    """Fills every buffer with what no table holds before anything is received into it; counts the elements by dtype."""
    elements: Counter[str] = Counter()
    all_to_all_single, all_gather = dist.all_to_all_single, dist.all_gather

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

    with (
        patch.object(dist, "all_to_all_single", poison_then_exchange),
        patch.object(dist, "all_gather", poison_then_gather),
    ):
        yield elements
