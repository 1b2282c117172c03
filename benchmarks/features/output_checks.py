"""What every system's divided output layer is asked in the same way. Imports torch alone."""

from typing import Any, ClassVar, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from common.collectives import largest_tensor
from features.catalogue import Answer, whether
from features.probes import Probes, rows


class OutputLayer(Protocol):
    """An output layer without bias, its rows divided among the ranks, and the cross-entropy behind it."""

    def lookup(self, ids: Tensor) -> Tensor:
        """Return rows of the same weights."""

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the tokens, a scalar."""

    def backward(self, loss: Tensor) -> None:
        """Call ``loss.backward()``, in whatever context the system needs."""

    def whole_gradient(self) -> Tensor:
        """Return the weights' gradient, of all rows, on every rank."""


class OutputChecks(Probes):
    """Probes of a divided output layer.

    Attributes:
        make_layer: Makes an OutputLayer of rows, [V, H], which are whole and the same on every rank.
    """

    make_layer: ClassVar[type[Any]]

    def sharded_cross_entropy(self) -> Answer:
        """Take seven tokens, the same on both ranks, and 132 classes."""
        target = torch.tensor([0, 1, 70, 130, 131, 3, 3])
        layer, hidden, weight = self.make_layer(rows(132)), rows(7).requires_grad_(), rows(132).requires_grad_()
        loss = layer.loss(hidden, target)
        layer.backward(loss)
        mine = [loss, hidden.grad, layer.whole_gradient()]

        whole_hidden = rows(7).requires_grad_()
        expected = F.cross_entropy(whole_hidden @ weight.t(), target)
        expected.backward()
        return _compare(mine, [expected, whole_hidden.grad, weight.grad], "F.cross_entropy, loss and gradients")

    def own_tokens(self) -> Answer:
        """Take three tokens on rank 0, five on rank 1; the mean over ranks of loss and gradient is that over all."""
        hidden, target = rows(8), torch.tensor([0, 1, 70, 130, 131, 3, 3, 99])
        mine = slice(0, 3) if self.rank == 0 else slice(3, 8)
        layer, weight = self.make_layer(rows(132)), rows(132).requires_grad_()
        loss = layer.loss(hidden[mine].requires_grad_(), target[mine])
        layer.backward(loss)
        expected = F.cross_entropy(hidden @ weight.t(), target)
        expected.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        return _compare([mean / self.group.size(), layer.whole_gradient()], [expected, weight.grad], "F.cross_entropy")

    def logits_in_chunks(self) -> Answer:
        """Take 16,384 tokens and 2,000 classes."""
        tokens, classes = 16_384, 2000
        layer: OutputLayer = self.make_layer(rows(classes))
        with largest_tensor() as largest:
            layer.backward(layer.loss(rows(tokens).requires_grad_(), torch.arange(tokens) % classes))
        logits = tokens * classes // self.group.size()
        evidence = f"the largest tensor has {largest[0] / 1e6:.1f} million numbers, a rank's logits {logits / 1e6:.1f}"
        return whether(largest[0] < logits, evidence)

    def tied_tables(self) -> Answer:
        """Train a model that is nothing but the tied table: the gradient has a part from either use."""
        ids, target = torch.tensor([1, 70, 130]), torch.tensor([5, 1, 131])
        layer, weight = self.make_layer(rows(132)), rows(132).requires_grad_()
        layer.backward(layer.loss(layer.lookup(ids), target))
        F.cross_entropy(weight[ids] @ weight.t(), target).backward()
        return _compare([layer.whole_gradient()], [weight.grad], "the gradient of one process")


def _compare(mine: list[Tensor | None], expected: list[Tensor | None], name: str) -> Answer:
    difference = 0.0
    for value, reference in zip(mine, expected, strict=True):
        assert value is not None
        assert reference is not None
        difference = max(difference, float((value.detach() - reference.detach()).abs().max()))
    return whether(difference < 1e-5, f"differs from {name} by at most {difference:.1g}")
