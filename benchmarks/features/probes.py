"""A system's probes, and its tables as they see them. Imports torch alone."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, Protocol

import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from features.catalogue import Answer
from features.evidence import one_line, search


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
    """``tables`` that are modules, called one by one, and an ``optimizer``."""

    tables: list[Any]
    optimizer: Optimizer

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """See Tables."""
        return [table(mine) for table, mine in zip(self.tables, ids, strict=True)]

    def update(self) -> None:
        """See Tables."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def local_rows(self) -> int:
        """See Tables."""
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
