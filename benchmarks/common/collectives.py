"""Collectives that benchmarks call, and those of other systems, which they observe. Imports torch alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def gathered(shard: Tensor) -> Tensor:
    """Return the shards of all ranks, one below the other (collective)."""
    shards: list[Tensor] = [shard] * dist.get_world_size()
    dist.all_gather_object(shards, shard.detach())
    return torch.cat(shards)


class Observer(TorchDispatchMode):
    """Reports each operation of this thread to ``observe(function, argument_bytes, result)``, which slows it down.

    ``argument_bytes`` holds the size of each argument that is a tensor or a list of tensors, taken before the call.
    """

    def __init__(self, observe: Callable[[Any, list[int], Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observe = observe

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # DTensor makes ordinary operations of it, which come here in turn
        given = [sum(map(_stored_bytes, tensors)) for tensors in map(_tensors, args) if tensors]
        result = function(*args, **(kwargs or {}))
        self._observe(function, given, result)
        return result


@contextmanager
def collectives() -> Iterator[list[int]]:
    """Collect, for each collective that this thread calls, the bytes that it was given, its own share included."""
    sent: list[int] = []

    def observe(function: Any, given: list[int], result: Any) -> None:
        if function.namespace in ("c10d", "_c10d_functional") and "wait_tensor" not in str(function):
            sent.append(given[-1] if given else 0)  # where a collective has both, its output stands before its input

    with Observer(observe):
        yield sent


@contextmanager
def largest_tensor() -> Iterator[list[int]]:
    """Collect one number: how many elements the largest tensor has that was made."""
    largest = [0]

    def observe(function: Any, given: list[int], result: Any) -> None:
        largest[0] = max([largest[0], *(tensor.numel() for tensor in _tensors(result))])

    with Observer(observe):
        yield largest


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _stored_bytes(tensor: Tensor) -> int:
    return tensor._indices().nbytes + tensor._values().nbytes if tensor.is_sparse else tensor.nbytes
