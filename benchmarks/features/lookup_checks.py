"""What every system's tables are asked about lookups, in the same way. Imports torch alone.

Ranks have the same ids unless a check is about ids that differ; then the mean over ranks is what one process computes.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.collectives import collectives
from features.catalogue import Answer, whether
from features.evidence import installed, one_line, rows
from features.probes import Probes, Tables

SECONDS_FOR_A_COLLECTIVE = 10  # of the process groups; by default it is half an hour
LEARNING_RATE = 0.1
IDS = torch.tensor([[1, 70, 130], [3, 3, 5]])
_ERRORS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


class LookupChecks(Probes):
    """Probes of lookups; ``options`` are passed on to the system's tables."""

    def pip_install(self) -> Answer:
        """Look rows up, and ask pip whether it has all it takes."""
        self.tables([rows(132)]).lookup(IDS)
        return installed(self.distribution)

    def rows_divided(self) -> Answer:
        """Look up 132 rows on two ranks."""
        table = self.tables([rows(132)])
        if not torch.equal(table.lookup(IDS)[0], rows(132)[IDS]):
            return Answer("no", "lookups give other rows than those of the ids")
        held = table.local_rows()
        return whether(held == 132 // self.group.size(), f"rank {self.rank} holds {held} of 132 rows")

    def any_vocabulary_size(self) -> Answer:
        """Look up a number of rows that the number of ranks does not divide."""
        table = self.tables([rows(131)])
        evidence = f"rank {self.rank} holds {table.local_rows()} of 131 rows"
        return whether(torch.equal(table.lookup(IDS)[0], rows(131)[IDS]), evidence)

    def plain_tensors(self) -> Answer:
        """Look up a matrix of ids, in systems whose adapter hands it on as it is."""
        shape = tuple(self.tables([rows(132)]).lookup(IDS)[0].shape)
        return whether(shape == (*IDS.shape, 4), f"ids of shape {tuple(IDS.shape)} give rows of shape {shape}")

    def uneven_batches(self) -> Answer:
        """Train with three ids on rank 0, five on rank 1."""
        return self.own_batches([torch.tensor([1, 70, 130]), torch.tensor([3, 3, 5, 131, 70])])

    def empty_batch(self, **options: Any) -> Answer:
        """Train with three ids on rank 0, none on rank 1."""
        return self.own_batches([torch.tensor([1, 70, 130]), torch.empty(0, dtype=torch.int64)], **options)

    def own_batches(self, batches: Sequence[Tensor], **options: Any) -> Answer:
        """Compare a step in which each rank has ids of its own with one process that has all of them."""
        expected, ids = rows(132), batches[self.rank]
        table = self.tables([rows(132)], **options)
        found = table.lookup(ids)[0]
        if not torch.equal(found, expected[ids]):
            return Answer("no", f"rank {self.rank} gets other rows than those of its ids")
        found.backward(gradient_of(found))
        table.update()
        for some in batches:
            expected.index_add_(0, some, gradient_of(expected[some]), alpha=-LEARNING_RATE / len(batches))
        return compare(table, expected, "one process")

    def bad_id_raises(self, culprits: Sequence[int] = (1,), **options: Any) -> Answer:
        """Ask for row 132 of 132 on rank 1, or on all ``culprits``."""
        table = self.tables([rows(132)], **options)
        started = time.monotonic()
        try:
            row = table.lookup(torch.tensor([132 if self.rank in culprits else 5]))[0].detach()[0]
        except _ERRORS as error:
            return self._raised(error, started)
        if self.rank not in culprits:
            return Answer("partly", f"rank {self.rank} goes on; rank 1 alone raises")
        same = [number for number in range(132) if torch.equal(rows(132)[number], row)]
        return Answer("no", f"id 132 gives {f'row {same[0]}' if same else row.tolist()}")

    def disagreement_raises(self) -> Answer:
        """Make rows of 4 numbers on rank 0, and of 8 on rank 1."""
        started = time.monotonic()
        try:
            shape = self.tables([rows(132, 4 + 4 * self.rank)]).lookup(IDS)[0].shape
        except _ERRORS as error:
            return self._raised(error, started)
        return Answer("no", f"rank {self.rank} gets rows of shape {tuple(shape)}")

    def _raised(self, error: Exception, started: float) -> Answer:
        waited = time.monotonic() - started > SECONDS_FOR_A_COLLECTIVE / 2
        where = f"rank {self.rank} {'waits for the time-out' if waited else 'raises'}"
        return Answer("partly" if waited else "yes", f"{where}: {one_line(error)}")

    def max_norm(self) -> Answer:
        """Look up rows of a norm of about 2 with a norm of 0.5."""
        norm = float(self.tables([rows(132)], max_norm=0.5).lookup(IDS)[0].detach().norm(dim=-1).max())
        return whether(norm < 0.5001, f"the largest norm looked up with max_norm=0.5 is {norm:.3f}")

    def several_tables(self, **options: Any) -> Answer:
        """Count the collectives of forward and backward."""
        one, two = self.tables([rows(132)], **options), self.tables([rows(132), rows(50, 8)], **options)
        with collectives() as alone:
            found = one.lookup(IDS)
        if not alone:
            return Answer("n/a", "a lookup takes no collective")
        with collectives() as alone_backward:
            torch.autograd.backward(found, [torch.ones_like(block) for block in found])
        with collectives() as together:
            found = two.lookup(IDS, IDS % 50)
            torch.autograd.backward(found, [torch.ones_like(block) for block in found])
        few, many = len(alone + alone_backward), len(together)
        return whether(few == many, f"collectives: {few} for one table, {many} for two")

    def deduplicated_ids(self, **options: Any) -> Answer:
        """Look up 1,000 times the same id."""
        table = self.tables([rows(132)], **options)
        with collectives() as once:
            table.lookup(torch.tensor([70]))
        with collectives() as often:
            table.lookup(torch.full((1000,), 70))
        if not once:
            return Answer("n/a", "a lookup takes no collective")
        evidence = f"{sum(once):,} bytes travel for one id, {sum(often):,} for 1,000 times the same"
        return whether(sum(often) == sum(once), evidence)

    def unbounded_ids(self) -> Answer:
        """Look up id 10¹² in a table of 132 rows, on every rank."""
        row = self.tables([rows(132)]).lookup(torch.tensor([10**12]))[0].detach()[0]
        return Answer("no" if not row.any() else "error", f"id 10^12 gives {row.tolist()}")

    def less_traffic(self, **options: Any) -> Answer:
        """Compare the bytes of forward and backward of rows of 1,024 numbers with and without ``options``."""
        sent = []
        for table in (self.tables([rows(132, 1024)]), self.tables([rows(132, 1024)], **options)):
            with collectives() as sizes:
                found = table.lookup(IDS)[0]
                found.backward(torch.ones_like(found))
            sent.append(sum(sizes))
        return whether(sent[1] < 0.6 * sent[0], f"{sent[0]:,} bytes travel with float32 rows, {sent[1]:,} with 16 bits")


def train(table: Tables, ids: Tensor) -> None:
    """Train one step with the gradient of ``gradient_of``."""
    found = table.lookup(ids)[0]
    found.backward(gradient_of(found))
    table.update()


def compare(table: Tables, expected: Tensor, name: str) -> Answer:
    """Answer yes if the table's rows are the expected ones."""
    difference = float((table.whole() - expected).abs().max())
    return whether(difference < 1e-5, f"rows differ from {name} by at most {difference:.1g}")


def gradient_of(found: Tensor) -> Tensor:
    """Return [0.5, 1, 1.5, 2] for each row of 4 numbers."""
    return torch.linspace(0.5, 2.0, found.shape[-1]).expand(found.shape).contiguous()
