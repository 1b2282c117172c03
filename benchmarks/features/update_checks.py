"""What every system's tables are asked about updates, in the same way. Imports torch alone."""

from typing import Any

import torch
from torch import Tensor, nn

from features.catalogue import Answer, whether
from features.evidence import rows
from features.lookup_checks import IDS, LEARNING_RATE, compare, gradient_of, train
from features.probes import Probes, Tables


class UpdateChecks(Probes):
    """Probes of updates; ``options`` are passed on to the system's tables."""

    def padding_idx(self) -> Answer:
        """See whether row 3 keeps its value while its neighbours learn."""
        moved = _moved(self.tables([rows(132)], padding_idx=3), IDS)
        return whether(moved[3] == 0 < moved[5], f"a step moves row 3 by {moved[3]:.3f}, row 5 by {moved[5]:.3f}")

    def scale_grad_by_freq(self) -> Answer:
        """See whether a row that is looked up three times moves as far as one that is looked up once."""
        ids = torch.tensor([[3, 3, 3, 5], [70, 70, 70, 90]])[self.rank]
        moved = _moved(self.tables([rows(132)], scale_grad_by_freq=True), ids)
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


def fused_by_hook(table: Tables, weight: nn.Parameter) -> Answer:
    """Answer partly: the optimizer is called by the user's own hook, and the gradient exists for a moment."""
    weight.register_post_accumulate_grad_hook(lambda _: table.update())
    found = table.lookup(IDS[0])[0]
    found.backward(gradient_of(found))
    answer = compare(table, rows(132).index_add(0, IDS[0], gradient_of(found), alpha=-LEARNING_RATE), "one process")
    right = answer.verdict == "yes" and weight.grad is None
    return whether(right, f"with a hook that calls the optimizer {answer.evidence}", "partly")


def applied_gradient(table: Tables) -> float:
    """Return what a step of SGD applies, where each rank has a gradient of 2."""
    train(table, IDS)
    return float((rows(132) - table.whole())[1, 3] / LEARNING_RATE)


def _moved(table: Tables, ids: Tensor) -> list[float]:
    """Return how far a step moves each row."""
    before = table.whole().clone()
    train(table, ids)
    moved: list[float] = (table.whole() - before).abs().amax(dim=1).tolist()
    return moved
