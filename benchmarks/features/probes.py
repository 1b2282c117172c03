"""A system's probes: its tables as they see them, and the ways to observe it. Imports torch alone."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, ClassVar, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.optim import Optimizer

from features.catalogue import Answer


class Tables(Protocol):
    """One or several tables with their optimizer. Every method may be collective."""

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """Return the rows of each table's ids."""

    def update(self) -> None:
        """Take the optimizer's step; gradients are gone afterwards."""

    def whole(self) -> Tensor:
        """Return all rows of the first table, on every rank."""

    def local_rows(self) -> int:
        """Return how many rows of the first table this rank holds."""


class PlainTables:
    """The part of Tables that is alike for ``tables`` that are modules, called one by one, and their ``optimizer``."""

    tables: list[Any]
    optimizer: Optimizer

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        return [table(mine) for table, mine in zip(self.tables, ids, strict=True)]

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def local_rows(self) -> int:
        return len(self.tables[0].weight)


class Probes:
    """The probes of a system: a method for each feature, with its name, that returns this rank's answer (collective).

    Subclasses derive from the checks that systems share, and override those that the system needs put otherwise.

    Attributes:
        distribution: What pip installs.
        package: Where patterns are searched.
        make_tables: Makes Tables of rows, an optimizer's name and options.
        absent: Features without anything to try: a pattern that no file of the package has.
        refusals: Features for which an error of this type means no. Any other error is the probe's own.
    """

    distribution: ClassVar[str]
    package: ClassVar[ModuleType]
    make_tables: ClassVar[type[Any]]
    absent: ClassVar[Mapping[str, str]] = {}
    refusals: ClassVar[Mapping[str, type[Exception]]] = {}

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank = group, group.rank()

    def answer(self, feature: str) -> Answer:
        """Probe the feature on this rank (collective)."""
        if feature in self.absent:
            return search(self.package, self.absent[feature])
        try:
            answer: Answer = getattr(self, feature)()
        except self.refusals.get(feature, ()) as error:
            return Answer("no", one_line(error))
        return answer

    def tables(self, weights: Sequence[Tensor], optimizer: str = "SGD", **options: Any) -> Any:
        """Make the system's Tables of these rows, which are whole and the same on every rank.

        ``optimizer`` is one of SGD, Adam, Adagrad and RowWiseAdagrad; ``options`` are those of the system.
        """
        return self.make_tables(weights, optimizer, **options)


def rows(number: int, dim: int = 4) -> Tensor:
    """Return the same normal numbers on every rank, [number, dim]."""
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(number))


def one_line(error: BaseException) -> str:
    """Return the error's type and the beginning of its message."""
    text = str(error).partition(" This could be because")[0]  # a page that PyTorch adds to some
    return f"{type(error).__name__}: {shorten(text, 150, placeholder=' …')}"


def installed(distribution: str) -> Answer:
    """Ask ``pip check`` whether the distribution has all it requires."""
    command = [sys.executable, "-m", "pip", "check"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    missing = [line for line in lines if line.startswith(f"{distribution} ")]
    if missing:
        return Answer("partly", f"works, but only in an environment of which pip says: {'; '.join(missing)}")
    return Answer("yes", f"{distribution} {version(distribution)} has all it requires")


def search(package: ModuleType, pattern: str) -> Answer:
    """Answer no if no Python file of the package has the pattern; if one has, a real probe must replace the search."""
    files = [file for folder in package.__path__ for file in Path(folder).rglob("*.py")]
    found = [file for file in files if re.search(pattern, file.read_text(encoding="utf-8"))]
    if found or not files:
        return Answer("error", f"/{pattern}/ occurs in {', '.join(map(str, found[:3]))}")
    return Answer("no", f"/{pattern}/ occurs in none of the {len(files)} files of {package.__name__}")


def own_methods(of: type) -> Answer:
    """Answer no, because the class has these public methods and no others."""
    names = [name for name, value in vars(of).items() if callable(getattr(value, "__func__", value))]
    return Answer("no", f"the methods of {of.__name__} are {', '.join(n for n in names if not n.startswith('_'))}")


def become_a_world_of_one() -> None:
    """Leave the process group (collective), and start one of this rank alone."""
    dist.barrier()
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=10))
