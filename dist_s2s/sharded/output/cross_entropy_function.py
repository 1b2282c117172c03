"""The computation behind VocabParallelCrossEntropy: the losses of all tokens and, in the same pass, their gradients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_s2s.sharded.exchange.shard import subject_of
from dist_s2s.sharded.output.classes import OutputShard, exponentiate_, merge_sums, sum_dtype
from dist_s2s.sharded.output.tokens import gather_equal, gather_tokens, return_tokens
from dist_s2s.sharded.tables.embedding import DistributedEmbedding


@dataclass(frozen=True)
class Wants:
    """Which gradients any rank wants; all ranks then compute their parts of them."""

    hidden: bool
    weight: bool
    bias: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is a backward to prepare."""
        return self.hidden or self.weight or self.bias


@dataclass(frozen=True)
class Problem:
    """What all ranks have agreed on before tokens travel.

    Attributes:
        table: the output table.
        bias: a table of one column, or None.
        num_classes: ids from here on are not classes.
        label_smoothing: as in torch.nn.CrossEntropyLoss.
        scale: factor of the sum of this rank's losses; nan for the mean over no tokens, whose gradients are 0.
        chunk_elements: number of logits that a rank computes at a time.
        counts: number of tokens of each rank.
        wants: which gradients to compute.
    """

    table: DistributedEmbedding
    bias: DistributedEmbedding | None
    num_classes: int
    label_smoothing: float
    scale: float
    chunk_elements: int
    counts: Sequence[int]
    wants: Wants


class CrossEntropyFunction(torch.autograd.Function):
    """Maps this rank's hidden states, [n, H], and targets, int64 [n], to its loss; cross_entropy.py has the protocol.

    The weights of table and bias are inputs only so that autograd asks for their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, problem: Problem
    ) -> Tensor:
        """Take steps 2 to 4 of the protocol (collective); ``hidden`` has the dtype of the matrix products."""
        losses, gradients = losses_and_gradients(hidden, targets, problem)
        ctx.problem, ctx.gradients = problem, gradients
        return losses.sum() * problem.scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Take step 5 (collective). Gradients are scaled in place: a table's is as large as its shard."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "backward through VocabParallelCrossEntropy can run only once, because forward has computed the "
                "gradients and the first backward has given them away; call forward again"
            )
        problem: Problem = ctx.problem
        scale = 0.0 if math.isnan(problem.scale) else problem.scale
        factor = _same_on_all_ranks(grad_outputs[0], problem.table) * scale
        hidden = gradients.hidden
        return (
            None if hidden is None else hidden.mul_(factor).to(gradients.hidden_dtype),
            _of_table(gradients.weight, problem.table, problem.table, factor),
            _of_table(gradients.bias, problem.bias, problem.table, factor),
            None,
            None,
        )


def losses_and_gradients(hidden: Tensor, targets: Tensor, problem: Problem) -> tuple[Tensor, "_Gradients"]:
    """Return the losses of this rank's tokens, [n], and the gradients of their sum: steps 2 to 4 (collective).

    Args:
        hidden: [n, H] in the dtype of the matrix products.
        targets: int64 [n], classes.
        problem: what the ranks have agreed on.
    """
    table, counts, num_tokens = problem.table, problem.counts, sum(problem.counts)
    with torch.autocast(hidden.device.type, enabled=False):
        shard = OutputShard.of(table, problem.bias, problem.num_classes, hidden.dtype)
        all_hidden, all_targets = gather_tokens(hidden, counts, table), gather_tokens(targets, counts, table)
        gradients = _Gradients(problem.wants, shard, all_hidden, len(table.weight))
        losses = all_hidden.new_empty(num_tokens, dtype=sum_dtype(hidden.dtype))
        for tokens in shard.chunks(num_tokens, problem.chunk_elements):
            logits = shard.logits(all_hidden[tokens])
            losses[tokens] = _losses_and_gradient_(logits, all_targets[tokens], shard, problem)
            gradients.add(tokens, logits)
        if gradients.hidden is not None:
            gradients.hidden = sum_in_order(return_tokens(gradients.hidden, counts, table))
    before = sum(counts[: table.rank])
    return losses[before : before + len(hidden)], gradients


class _Gradients:
    """Gradients of the sum of all tokens' losses; None where nobody wants them.

    Attributes:
        hidden: this rank's part of those of all N tokens, [N, H]; the ranks then sum their parts.
        weight: those of the shard, [rows, H].
        bias: those of the bias's shard, [rows, 1].
    """

    def __init__(self, wants: Wants, shard: OutputShard, hidden: Tensor, rows: int) -> None:
        self._shard, self._tokens = shard, hidden
        self.hidden_dtype, dtype = hidden.dtype, sum_dtype(hidden.dtype)
        self.hidden = torch.empty_like(hidden, dtype=dtype) if wants.hidden else None
        self.weight = hidden.new_zeros(rows, hidden.shape[1], dtype=dtype) if wants.weight else None
        self.bias = hidden.new_zeros(rows, 1, dtype=dtype) if wants.bias else None

    def add(self, tokens: slice, logits_gradient: Tensor) -> None:
        """Add what follows from the gradient of the logits of some tokens, [T, C]."""
        classes = logits_gradient.shape[1]
        factor = logits_gradient.to(self.hidden_dtype)
        if self.hidden is not None:
            self.hidden[tokens] = factor @ self._shard.weight
        if self.weight is not None:
            rows = self.weight[:classes]
            if rows.dtype == factor.dtype:
                rows.addmm_(factor.t(), self._tokens[tokens])
            else:  # the sum over chunks is in float32
                rows.add_(factor.t() @ self._tokens[tokens])
        if self.bias is not None:
            self.bias[:classes, 0] += logits_gradient.sum(dim=0)


def sum_in_order(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of the parts, added in their order, so that its bits do not depend on the transport."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _losses_and_gradient_(logits: Tensor, targets: Tensor, shard: OutputShard, problem: Problem) -> Tensor:
    """Return the losses, [T], and replace the local logits, [T, C], by their gradient if any is wanted (collective).

    With smoothing s and V classes, loss = (1 - s) · -log p(target) + s/V · the sum over all classes of -log p.
    """
    smoothing, num_classes = problem.label_smoothing, problem.num_classes
    places, columns = shard.find(targets)
    of_target = logits.new_zeros(len(logits))
    of_target[places] = logits[places, columns]
    mean = logits.sum(dim=1).div_(num_classes) if smoothing else torch.zeros_like(of_target)
    largest, exp_sum = exponentiate_(logits)
    mine = torch.stack((largest, exp_sum, of_target, mean))
    all_largest, exp_sums, of_targets, means = gather_equal(mine, problem.table).unbind(dim=1)
    top, total = merge_sums(all_largest, exp_sums)
    if problem.wants.anything:
        logits.mul_(((largest - top).exp_() / total)[:, None])  # probabilities
        if smoothing:
            logits.sub_(smoothing / num_classes)
        logits[places, columns] -= 1 - smoothing
    # Differences of logits first, then the logarithm: float32 keeps more of them.
    losses = total.log() + (1 - smoothing) * (top - of_targets.sum(dim=0))
    return losses + smoothing * (top - means.sum(dim=0)) if smoothing else losses


def _same_on_all_ranks(loss_gradient: Tensor, table: DistributedEmbedding) -> float:
    """Return the gradient of the loss; raise ValueError on every rank if it differs between ranks (collective)."""
    subject = subject_of("the backward of a cross-entropy", [table])
    values = [theirs for (theirs,) in table.group.agree_on_floats(subject, [float(loss_gradient)])]
    for rank, value in enumerate(values):
        if value != values[0] and not (math.isnan(value) and math.isnan(values[0])):
            raise ValueError(
                f"the gradient of the loss must be the same on every rank, but is {values[0]:g} on rank 0 and "
                f"{value:g} on rank {rank}; scale the loss equally on all ranks"
            )
    return values[0]


def _of_table(
    gradient: Tensor | None, owner: DistributedEmbedding | None, table: DistributedEmbedding, factor: float
) -> Tensor | None:
    """Return the gradient of ``owner``'s shard, scaled and summed over the table's replicas (collective among them)."""
    if gradient is None or owner is None:
        return None
    gradient.mul_(factor / owner.grad_divisor)
    replicas = table.group.replicas
    if replicas.size > 1:
        subject = subject_of("the sum of output gradients over replicas", [table])
        gradient = sum_in_order(
            replicas.gather(gradient, subject, [len(gradient)] * replicas.size).chunk(replicas.size)
        )
    return gradient.to(owner.weight.dtype)
