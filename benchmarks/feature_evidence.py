"""How the probes of features.py observe a system. Imports torch alone."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from feature_list import Answer
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.utils._python_dispatch import TorchDispatchMode

Probe = Callable[[dist.ProcessGroup], Answer]


def rows(number: int, dim: int = 4) -> Tensor:
    """The same normal numbers on every rank, [number, dim]."""
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(number))


def one_line(error: BaseException) -> str:
    """The error's type and the beginning of its message."""
    text = str(error).partition(" This could be because")[0]  # a page that PyTorch adds to some
    return f"{type(error).__name__}: {shorten(text, 150, placeholder=' …')}"


def installed(distribution: str) -> Answer:
    """Whether the distribution has all it requires, by ``pip check``."""
    command = [sys.executable, "-m", "pip", "check"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    missing = [line for line in lines if line.startswith(f"{distribution} ")]
    if missing:
        return Answer("partly", f"works, but only in an environment of which pip says: {'; '.join(missing)}")
    return Answer("yes", f"{distribution} {version(distribution)} has all it requires")


def refusing(probes: dict[str, Probe], refusals: dict[str, type[Exception]]) -> dict[str, Probe]:
    """The probes, where for some an error of this type means no. Any other error is the probe's own."""

    def guarded(probe: Probe, refusal: type[Exception], group: dist.ProcessGroup) -> Answer:
        try:
            return probe(group)
        except refusal as error:
            return Answer("no", one_line(error))

    return probes | {name: partial(guarded, probes[name], refusal) for name, refusal in refusals.items()}


def search(package: ModuleType, pattern: str) -> Answer:
    """No, if no Python file of the package has the pattern. If one has, a real probe must take this one's place."""
    files = [file for folder in package.__path__ for file in Path(folder).rglob("*.py")]
    found = [file for file in files if re.search(pattern, file.read_text(encoding="utf-8"))]
    if found or not files:
        return Answer("error", f"/{pattern}/ occurs in {', '.join(map(str, found[:3]))}")
    return Answer("no", f"/{pattern}/ occurs in none of the {len(files)} files of {package.__name__}")


def own_methods(of: type) -> Answer:
    """No, because the class has these public methods and no others."""
    names = [name for name, value in vars(of).items() if callable(getattr(value, "__func__", value))]
    return Answer("no", f"the methods of {of.__name__} are {', '.join(n for n in names if not n.startswith('_'))}")


class _Observer(TorchDispatchMode):
    """Tells ``observe`` of each operation of this thread, its arguments and its result."""

    def __init__(self, observe: Callable[[Any, Any, Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.observe = observe

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.observe(function, args, result)
        return result


@contextmanager
def collectives() -> Iterator[list[int]]:
    """Collects the bytes that each collective is given."""
    sizes: list[int] = []

    def observe(function: Any, args: Any, result: Any) -> None:
        if function.namespace == "c10d":
            sizes.append(sum(tensor.nbytes for tensor in _tensors(args)))

    with _Observer(observe):
        yield sizes


@contextmanager
def largest_tensor() -> Iterator[list[int]]:
    """Collects one number: how many elements the largest tensor has that was made."""
    largest = [0]

    def observe(function: Any, args: Any, result: Any) -> None:
        largest[0] = max([largest[0], *(tensor.numel() for tensor in _tensors([result]))])

    with _Observer(observe):
        yield largest


def gathered(shard: Tensor) -> Tensor:
    """The shards of all ranks, one below the other (collective)."""
    shards: list[Tensor] = [shard] * dist.get_world_size()
    dist.all_gather_object(shards, shard.detach())
    return torch.cat(shards)


def become_a_world_of_one() -> None:
    """Leaves the process group (collective), and starts one of this rank alone."""
    dist.barrier()
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=10))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
