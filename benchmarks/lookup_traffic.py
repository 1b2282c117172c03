"""Observes the collectives of systems that do not count them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Traffic:
    """How many collectives this rank has called, and the bytes that it gave them, its own share included."""

    collectives: int = 0
    bytes_sent: int = 0


@contextmanager
def observed() -> Iterator[Traffic]:
    """Counts what this thread calls, which slows it down."""
    traffic = Traffic()
    with _Observer(traffic):
        yield traffic


class _Observer(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.traffic = traffic

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # DTensor makes ordinary operations of it, which come here in turn
        given = [_bytes(argument) for argument in args]
        result = function(*args, **(kwargs or {}))
        if function.namespace in ("c10d", "_c10d_functional") and "wait_tensor" not in str(function):
            self.traffic.collectives += 1
            # Where a collective has both, its output stands before its input.
            self.traffic.bytes_sent += next((size for size in reversed(given) if size is not None), 0)
        return result


def _bytes(argument: Any) -> int | None:
    """Of a tensor, or of all in a list; None if there is none."""
    tensors = list(_tensors([argument]))
    return sum(map(_stored_bytes, tensors)) if tensors else None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _stored_bytes(tensor: Tensor) -> int:
    return tensor._indices().nbytes + tensor._values().nbytes if tensor.is_sparse else tensor.nbytes
