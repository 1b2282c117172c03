"""What every system's tables are asked in the same way, through an adapter of its own. Imports torch alone.

Ranks have the same ids unless a check is about ids that differ; then the mean over ranks is what one process computes.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist
from feature_evidence import collectives, one_line, rows
from feature_list import Answer, whether
from torch import Tensor, nn

Probe = Callable[[dist.ProcessGroup], Answer]
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


def table_probes(make: MakeTable) -> dict[str, Probe]:
    """The checks of this file for one system."""
    checks = (
        rows_divided, any_vocabulary_size, plain_tensors, uneven_batches, empty_batch, bad_id_raises,
        disagreement_raises, padding_idx, max_norm, scale_grad_by_freq, sparse_adam, row_wise_adagrad,
        gradient_accumulation, several_tables, deduplicated_ids, unbounded_ids,
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
    return whether(torch.equal(table.lookup(IDS)[0], rows(131)[IDS]), f"rank {group.rank()} holds {table.local_rows()} of 131 rows")


def plain_tensors(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """For systems whose adapter hands the ids on as they are."""
    shape = tuple(make([rows(132)]).lookup(IDS)[0].shape)
    return Answer("yes", f"ids of shape {tuple(IDS.shape)} give rows of shape {shape}")


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
    found.backward(_gradient(found))
    table.update()
    for some in batches:
        expected.index_add_(0, some, _gradient(expected[some]), alpha=-LEARNING_RATE / len(batches))
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


def padding_idx(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Row 3 keeps its value while its neighbours learn."""
    moved = _moved(make([rows(132)], padding_idx=3), IDS)
    return whether(moved[3] == 0 < moved[5], f"a step moves row 3 by {moved[3]:.3f}, row 5 by {moved[5]:.3f}")


def max_norm(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Rows of a norm of about 2 are looked up with a norm of 0.5."""
    norm = make([rows(132)], max_norm=0.5).lookup(IDS)[0].detach().norm(dim=-1).max()
    return whether(norm < 0.5001, f"the largest norm looked up with max_norm=0.5 is {norm:.3f}")


def scale_grad_by_freq(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """A row that is looked up three times moves as far as one that is looked up once."""
    ids = torch.tensor([[3, 3, 3, 5], [70, 70, 70, 90]])[group.rank()]
    moved = _moved(make([rows(132)], scale_grad_by_freq=True), ids)
    return whether(moved[3] > 0 and torch.allclose(moved[3], moved[5]), f"looked up 3 times a row moves by {moved[3]:.3f}, looked up once by {moved[5]:.3f}")


def sparse_adam(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Two steps, with different ids."""
    reference = nn.Embedding.from_pretrained(rows(132), freeze=False, sparse=True)
    optimizer = torch.optim.SparseAdam(reference.parameters(), LEARNING_RATE)
    table = make([rows(132)], "Adam")
    for ids in (IDS, IDS[0]):
        train(table, ids)
        found = reference(ids)
        found.backward(_gradient(found))
        optimizer.step()
        optimizer.zero_grad()
    return compare(table, reference.weight.detach(), "torch.optim.SparseAdam")


def row_wise_adagrad(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """A step from the definition: row -= lr · g / (sqrt(mean(g²)) + eps)."""
    expected = rows(132)
    gradient = torch.zeros(132, 4).index_add_(0, IDS.flatten(), _gradient(expected[IDS]).flatten(0, 1))
    expected -= LEARNING_RATE * gradient / (gradient.square().mean(dim=1, keepdim=True).sqrt() + 1e-10)
    table = make([rows(132)], "RowWiseAdagrad")
    train(table, IDS)
    return compare(table, expected, "its definition")


def gradient_accumulation(make: MakeTable, group: dist.ProcessGroup) -> Answer:
    """Two micro-batches that share ids, and one step of Adagrad."""
    table = make([rows(132)], "Adagrad")
    reference = nn.Embedding.from_pretrained(rows(132), freeze=False)
    for ids in (IDS, IDS[0]):
        for found in (table.lookup(ids)[0], reference(ids)):
            found.backward(_gradient(found))
    table.update()
    torch.optim.Adagrad(reference.parameters(), LEARNING_RATE).step()
    return compare(table, reference.weight.detach(), "one large batch")


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
    return whether(sum(often) == sum(once), f"{sum(once):,} bytes travel for one id, {sum(often):,} for 1,000 times the same")


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


def fused_by_hook(table: Table, weight: nn.Parameter) -> Answer:
    """Partly, because the optimizer is called by the user's own hook, and the gradient exists for a moment."""
    weight.register_post_accumulate_grad_hook(lambda _: table.update())
    found = table.lookup(IDS[0])[0]
    found.backward(_gradient(found))
    answer = compare(table, rows(132).index_add(0, IDS[0], _gradient(found), alpha=-LEARNING_RATE), "one process")
    right = answer.verdict == "yes" and weight.grad is None
    return Answer("partly" if right else "no", f"with a hook that calls the optimizer {answer.evidence}")


def train(table: Table, ids: Tensor) -> None:
    """One step. Row r's gradient is [0.5, 1, 1.5, 2] for each time that its id occurs."""
    found = table.lookup(ids)[0]
    found.backward(_gradient(found))
    table.update()


def compare(table: Table, expected: Tensor, name: str) -> Answer:
    """Yes, if the table's rows are the expected ones."""
    difference = float((table.whole() - expected).abs().max())
    return whether(difference < 1e-5, f"rows differ from {name} by at most {difference:.1g}")


def _moved(table: Table, ids: Tensor) -> Tensor:
    """How far a step moves each row."""
    before = table.whole().clone()
    train(table, ids)
    return (table.whole() - before).abs().amax(dim=1)


def _gradient(found: Tensor) -> Tensor:
    return torch.linspace(0.5, 2.0, found.shape[-1]).expand(found.shape).contiguous()
