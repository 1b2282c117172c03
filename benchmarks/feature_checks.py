"""What every system's tables are asked about lookups, in the same way, through an adapter. Imports torch alone.

Ranks have the same ids unless a check is about ids that differ; then the mean over ranks is what one process computes.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist
from feature_evidence import Probe, collectives, one_line, rows
from feature_list import Answer, whether
from torch import Tensor

SECONDS_FOR_A_COLLECTIVE = 10  # of the process groups; by default it is half an hour
LEARNING_RATE = 0.1
IDS = torch.tensor([[1, 70, 130], [3, 3, 5]])
_ERRORS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


class Table(Protocol):
    """One or several tables with their optimizer. Every method may be collective."""

    def lookup(self, *ids: Tensor) -> Sequence[Tensor]:
        """Rows of each table's ids."""

    def update(self) -> None:
        """The optimizer's step; gradients are gone afterwards."""

    def whole(self) -> Tensor:
        """All rows of the first table, on every rank."""

    def local_rows(self) -> int:
        """How many rows of the first table this rank holds."""


# Makes tables of these rows, which are whole and the same on every rank. The second argument is one of SGD, Adam,
# Adagrad and RowWiseAdagrad; options are those of the system.
MakeTable = Callable[..., Table]


def lookup_probes(make: MakeTable) -> dict[str, Probe]:
    """The checks of this file for one system."""
    checks = (
        rows_divided, any_vocabulary_size, plain_tensors, uneven_batches, empty_batch, bad_id_raises,
        disagreement_raises, max_norm, several_tables, deduplicated_ids, unbounded_ids,
    )  # fmt: skip
    return {check.__name__: partial(check, make) for check in checks}


def rows_divided(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """132 rows on two ranks."""
    table = make([rows(132)])
    if not torch.equal(table.lookup(IDS)[0], rows(132)[IDS]):
        return Answer("no", "lookups give other rows than those of the ids")
    held = table.local_rows()
    return whether(held == 132 // group.size(), f"rank {group.rank()} holds {held} of 132 rows")


def any_vocabulary_size(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """A number of rows that the number of ranks does not divide."""
    table = make([rows(131)])
    return whether(
        torch.equal(table.lookup(IDS)[0], rows(131)[IDS]), f"rank {group.rank()} holds {table.local_rows()} of 131 rows"
    )


def plain_tensors(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """For systems whose adapter hands the ids on as they are."""
    shape = tuple(make([rows(132)]).lookup(IDS)[0].shape)
    return whether(shape == (*IDS.shape, 4), f"ids of shape {tuple(IDS.shape)} give rows of shape {shape}")


def uneven_batches(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Three ids on rank 0, five on rank 1."""
    return own_batches(make, group, [torch.tensor([1, 70, 130]), torch.tensor([3, 3, 5, 131, 70])])


def empty_batch(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Three ids on rank 0, none on rank 1."""
    return own_batches(make, group, [torch.tensor([1, 70, 130]), torch.empty(0, dtype=torch.int64)])


def own_batches(make: MakeTable, group: dist.ProcessGroup, batches: Sequence[Tensor]) -> Answer:
    """A step in which each rank has ids of its own, against one process that has all of them."""
    expected, ids = rows(132), batches[group.rank()]
    table = make([rows(132)])
    found = table.lookup(ids)[0]
    if not torch.equal(found, expected[ids]):
        return Answer("no", f"rank {group.rank()} gets other rows than those of its ids")
    found.backward(gradient_of(found))
    table.update()
    for some in batches:
        expected.index_add_(0, some, gradient_of(expected[some]), alpha=-LEARNING_RATE / len(batches))
    return compare(table, expected, "one process")


def bad_id_raises(make: MakeTable, group: dist.ProcessGroup, culprits: Sequence[int] = (1,)) -> Answer:
    """Rank 1, or these ranks, ask for row 132 of 132."""
    table = make([rows(132)])
    started = time.monotonic()
    try:
        row = table.lookup(torch.tensor([132 if group.rank() in culprits else 5]))[0].detach()[0]
    except _ERRORS as error:
        return _raised(error, group, started)
    if group.rank() not in culprits:
        return Answer("partly", f"rank {group.rank()} goes on; rank 1 alone raises")
    same = [number for number in range(132) if torch.equal(rows(132)[number], row)]
    return Answer("no", f"id 132 gives {f'row {same[0]}' if same else row.tolist()}")


def disagreement_raises(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Rows of 4 numbers on rank 0, and of 8 on rank 1."""
    started = time.monotonic()
    try:
        shape = make([rows(132, 4 + 4 * group.rank())]).lookup(IDS)[0].shape
    except _ERRORS as error:
        return _raised(error, group, started)
    return Answer("no", f"rank {group.rank()} gets rows of shape {tuple(shape)}")


def _raised(error: Exception, group: dist.ProcessGroup, started: float) -> Answer:
    waited = time.monotonic() - started > SECONDS_FOR_A_COLLECTIVE / 2
    where = f"rank {group.rank()} {'waits for the time-out' if waited else 'raises'}"
    return Answer("partly" if waited else "yes", f"{where}: {one_line(error)}")


def max_norm(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Rows of a norm of about 2 are looked up with a norm of 0.5."""
    norm = float(make([rows(132)], max_norm=0.5).lookup(IDS)[0].detach().norm(dim=-1).max())
    return whether(norm < 0.5001, f"the largest norm looked up with max_norm=0.5 is {norm:.3f}")


def several_tables(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """The collectives of forward and backward."""
    one, two = make([rows(132)]), make([rows(132), rows(50, 8)])
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


def deduplicated_ids(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """1,000 times the same id."""
    table = make([rows(132)])
    with collectives() as once:
        table.lookup(torch.tensor([70]))
    with collectives() as often:
        table.lookup(torch.full((1000,), 70))
    if not once:
        return Answer("n/a", "a lookup takes no collective")
    return whether(
        sum(often) == sum(once), f"{sum(once):,} bytes travel for one id, {sum(often):,} for 1,000 times the same"
    )


def unbounded_ids(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Id 10¹² in a table of 132 rows, on every rank."""
    row = make([rows(132)]).lookup(torch.tensor([10**12]))[0].detach()[0]
    return Answer("no" if not row.any() else "error", f"id 10^12 gives {row.tolist()}")


def reduced_precision(make: MakeTable, make_reduced: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Bytes of forward and backward of rows of 256 numbers; ids are a small part of them."""
    sent = []
    for table in (make([rows(132, 256)]), make_reduced([rows(132, 256)])):
        with collectives() as sizes:
            found = table.lookup(IDS)[0]
            found.backward(torch.ones_like(found))
        sent.append(sum(sizes))
    return whether(sent[1] < 0.6 * sent[0], f"{sent[0]:,} bytes travel with float32 rows, {sent[1]:,} with 16 bits")


def train(table: Table, ids: Tensor) -> None:
    """One step with the gradient of ``gradient_of``."""
    found = table.lookup(ids)[0]
    found.backward(gradient_of(found))
    table.update()


def compare(table: Table, expected: Tensor, name: str) -> Answer:
    """Yes, if the table's rows are the expected ones."""
    difference = float((table.whole() - expected).abs().max())
    return whether(difference < 1e-5, f"rows differ from {name} by at most {difference:.1g}")


def gradient_of(found: Tensor) -> Tensor:
    """[0.5, 1, 1.5, 2] for each row of 4 numbers."""
    return torch.linspace(0.5, 2.0, found.shape[-1]).expand(found.shape).contiguous()
