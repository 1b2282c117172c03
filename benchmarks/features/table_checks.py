"""What every system's tables are asked in the same way, of lookups and of updates. Imports torch alone.

Ranks have the same ids unless a check is about ids that differ; then the mean over ranks is what one process computes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.collectives import collectives
from features.catalogue import Answer, Verdict, whether
from features.probes import Probes, Tables, become_a_world_of_one, installed, one_line, rows

SECONDS_FOR_A_COLLECTIVE = 10  # of the process groups; by default it is half an hour
LEARNING_RATE = 0.1
IDS = torch.tensor([[1, 70, 130], [3, 3, 5]])
_ERRORS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


class TableChecks(Probes):
    """Probes of tables; ``options`` are passed on to the system's."""

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
        """Look up 20,000 times the same id, which would find no room in a first message."""
        table = self.tables([rows(132)], **options)
        with collectives() as once:
            table.lookup(torch.tensor([70]))
        with collectives() as often:
            table.lookup(torch.full((20_000,), 70))
        if not once:
            return Answer("n/a", "a lookup takes no collective")
        evidence = f"{sum(once):,} bytes travel for one id, {sum(often):,} for 20,000 times the same"
        return whether(sum(often) == sum(once), evidence)

    def unbounded_ids(self) -> Answer:
        """Look up id 10¹² in a table of 132 rows, on every rank."""
        row = self.tables([rows(132)]).lookup(torch.tensor([10**12]))[0].detach()[0]
        return Answer("no" if not row.any() else "error", f"id 10^12 gives {row.tolist()}")

    def less_traffic(self, **options: Any) -> Answer:
        """Compare the bytes of forward and backward of 132 rows of 4,096 numbers with and without ``options``."""
        sent = []
        for table in (self.tables([rows(132, 4096)]), self.tables([rows(132, 4096)], **options)):
            with collectives() as sizes:
                found = table.lookup(torch.arange(132))[0]
                found.backward(torch.ones_like(found))
            sent.append(sum(sizes))
        return whether(sent[1] < 0.6 * sent[0], f"{sent[0]:,} bytes travel with float32 rows, {sent[1]:,} with 16 bits")

    def padding_idx(self) -> Answer:
        """See whether row 3 keeps its value while its neighbours learn."""
        moved = _distances(self.tables([rows(132)], padding_idx=3), IDS)
        return whether(moved[3] == 0 < moved[5], f"a step moves row 3 by {moved[3]:.3f}, row 5 by {moved[5]:.3f}")

    def scale_grad_by_freq(self) -> Answer:
        """See whether a row that is looked up three times moves as far as one that is looked up once."""
        ids = torch.tensor([[3, 3, 3, 5], [70, 70, 70, 90]])[self.rank]
        moved = _distances(self.tables([rows(132)], scale_grad_by_freq=True), ids)
        evidence = f"looked up 3 times a row moves by {moved[3]:.3f}, looked up once by {moved[5]:.3f}"
        return whether(moved[3] > 0 and abs(moved[3] - moved[5]) < 1e-5, evidence)

    def sparse_adam(self) -> Answer:
        """Train two steps, with different ids."""
        reference = nn.Embedding.from_pretrained(rows(132), freeze=False, sparse=True)
        optimizer = torch.optim.SparseAdam(reference.parameters(), LEARNING_RATE)
        table = self.tables([rows(132)], "Adam")
        for ids in (IDS, IDS[0]):
            train(table, ids)
            found = reference(ids)
            found.backward(gradient_of(found))
            optimizer.step()
            optimizer.zero_grad()
        return compare(table, reference.weight.detach(), "torch.optim.SparseAdam")

    def row_wise_adagrad(self) -> Answer:
        """Train a step, and one from the definition: row -= lr · g / (sqrt(mean(g²)) + eps)."""
        expected = rows(132)
        gradient = torch.zeros(132, 4).index_add_(0, IDS.flatten(), gradient_of(expected[IDS]).flatten(0, 1))
        expected -= LEARNING_RATE * gradient / (gradient.square().mean(dim=1, keepdim=True).sqrt() + 1e-10)
        table = self.tables([rows(132)], "RowWiseAdagrad")
        train(table, IDS)
        return compare(table, expected, "its definition")

    def gradient_accumulation(self, **options: Any) -> Answer:
        """Add up two micro-batches that share ids, and take one step of Adagrad."""
        table = self.tables([rows(132)], "Adagrad", **options)
        reference = nn.Embedding.from_pretrained(rows(132), freeze=False)
        for ids in (IDS, IDS[0]):
            for found in (table.lookup(ids)[0], reference(ids)):
                found.backward(gradient_of(found))
        table.update()
        torch.optim.Adagrad(reference.parameters(), LEARNING_RATE).step()
        return compare(table, reference.weight.detach(), "one large batch")

    def fused_optimizer(self, **options: Any) -> Answer:
        """Call the optimizer in PyTorch's hook, for which the gradient exists for a moment: partly."""
        tables = self.tables([rows(132)], **options)
        weight = tables.tables[0].weight
        weight.register_post_accumulate_grad_hook(lambda _: tables.update())
        found = tables.lookup(IDS[0])[0]
        found.backward(gradient_of(found))
        expected = rows(132).index_add(0, IDS[0], gradient_of(found), alpha=-LEARNING_RATE)
        answer = compare(tables, expected, "one process")
        right = answer.verdict == "yes" and weight.grad is None
        return whether(right, f"with a hook that calls the optimizer {answer.evidence}", "partly")

    def reshard(self, save: Callable[[Any], Any], load: Callable[[Any, Any], object], optimizer: str) -> Answer:
        """Save on two ranks, load on one; the step after it would go wrong without the optimizer's state."""
        before = self.tables([rows(132)], optimizer)
        train(before, IDS)
        saved = save(before)
        train(before, IDS)
        expected = before.whole()
        become_a_world_of_one()
        after = self.tables([torch.zeros(132, 4)], optimizer)
        load(after, saved)
        train(after, IDS)
        return compare(after, expected, "those of two ranks, a step later,")


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


def applied_gradient(table: Tables) -> float:
    """Return what a step of SGD applies, where each rank has a gradient of 2."""
    return _distances(table, IDS)[1] / LEARNING_RATE


def both_reductions(mean: float, total: float, how: str, verdict: Verdict = "yes") -> Answer:
    """Judge by ``applied_gradient`` with the mean and with the sum over two ranks."""
    evidence = f"2 on each rank becomes {mean:.1f}, and {total:.1f} {how}"
    return whether((round(mean, 4), round(total, 4)) == (2, 4), evidence, verdict)


def _distances(table: Tables, ids: Tensor) -> list[float]:
    """Return how far a step moves each of the first rows."""
    train(table, ids)
    moved: list[float] = (table.whole() - rows(132)).abs().amax(dim=1).tolist()
    return moved
