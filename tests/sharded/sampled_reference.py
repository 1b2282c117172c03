"""What sampled softmax is measured against: its definition, token by token, in one process with the whole table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.output.sampled_softmax import SampledSoftmaxLoss
from tests.sharded.reference import assemble, random_ids, random_rows

V, H = 131, 6
EVERY_CLASS = 30_000  # draws, after which the least likely of V classes is missing with probability e^-46
IGNORED = -100


@dataclass(frozen=True)
class Case:
    """target: by rank, of any shapes."""

    target: list[Tensor]
    settings: dict[str, Any]
    layout: str = "contiguous"
    with_bias: bool = True
    steps: int = 1
    hidden: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hidden.extend(random_rows((*target.shape, H), seed=rank) for rank, target in enumerate(self.target))

    def loss(self, **groups: Any) -> SampledSoftmaxLoss:
        table, bias = tables(layout=self.layout, **groups)
        return SampledSoftmaxLoss(table, bias if self.with_bias else None, **self.settings)


def tables(**settings: Any) -> tuple[DistributedEmbedding, DistributedEmbedding]:
    """Weight and bias of an output layer; the same rows at any world size."""
    usual = {"num_embeddings": V, "dtype": torch.float64, "seed": 7, **settings}
    return DistributedEmbedding(embedding_dim=H, **usual), DistributedEmbedding(embedding_dim=1, **usual)


Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None]  # the loss, and gradients of hidden, table and bias


def run_steps(group: dist.ProcessGroup | None, cases: Sequence[Case]) -> list[Gradients]:
    """Of each case's last step, on this rank."""
    return [
        gradients(case.loss(process_group=group), case, 0 if group is None else dist.get_rank(group)) for case in cases
    ]


def gradients(loss: SampledSoftmaxLoss, case: Case, rank: int) -> Gradients:
    for _ in range(case.steps):
        loss.zero_grad()
        hidden = case.hidden[rank].clone().requires_grad_()
        value = loss(hidden, case.target[rank])
        value.backward()
    table_gradient, bias_gradient = loss.table.weight.grad, None if loss.bias is None else loss.bias.weight.grad
    assert hidden.grad is not None
    assert table_gradient is not None
    assert table_gradient.is_sparse
    return (
        value.detach(),
        hidden.grad,
        table_gradient.to_dense(),
        None if bias_gradient is None else bias_gradient.to_dense(),
    )


def by_definition(logits: Tensor, target: Tensor, case: Case, candidates: tuple[Tensor, Tensor] | None) -> Tensor:
    """The mean loss over the tokens, [N, V] and [N], token by token; of the exact softmax without candidates."""
    smoothing = case.settings.get("label_smoothing", 0.0)
    if candidates is None:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits, target.tolist(), strict=True):
        partition, sum_of_logits = row[label].exp(), row[label]
        for candidate, log_inclusion in zip(*(part.tolist() for part in candidates), strict=True):
            if candidate != label:
                partition = partition + row[candidate].exp() / math.exp(log_inclusion)
                sum_of_logits = sum_of_logits + row[candidate] / math.exp(log_inclusion)
        mean_logit = sum_of_logits / case.settings.get("num_classes", V)
        total = total + partition.log() - (1 - smoothing) * row[label] - smoothing * mean_logit
    return total / len(target)


def check_equal(
    results: Sequence[Gradients], case: Case, candidates: tuple[Tensor, Tensor] | None, num_shards: int | None = None
) -> None:
    """What the ranks got, against one process with the whole table and the tokens of all ranks.

    num_shards: the first so many ranks hold a table between them; by default all.
    """
    table, bias = tables()
    hidden = torch.cat([part.reshape(-1, H) for part in case.hidden]).requires_grad_()
    target = torch.cat([part.reshape(-1) for part in case.target])
    logits = hidden @ table.weight.t() + (bias.weight.t() if case.with_bias else 0)
    expected = by_definition(logits[target != IGNORED], target[target != IGNORED], case, candidates)
    expected.backward()
    losses, hidden_gradients, table_gradients, bias_gradients = zip(*results, strict=True)
    exactly = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(torch.stack(losses).mean(), expected.detach(), **exactly)
    own = torch.cat([gradient.reshape(-1, H) for gradient in hidden_gradients]) / len(results)
    torch.testing.assert_close(own, hidden.grad, **exactly)
    torch.testing.assert_close(assemble(table_gradients[:num_shards], case.layout), table.weight.grad, **exactly)
    if case.with_bias:
        torch.testing.assert_close(assemble(bias_gradients[:num_shards], case.layout), bias.weight.grad, **exactly)


def targets(world_size: int) -> list[list[Tensor]]:
    """Targets by rank: even; uneven, some ignored; scalars; none on the last rank; all ignored on the first."""
    even = [random_ids(V, (4, 3), seed=10 + rank) for rank in range(world_size)]
    uneven = [random_ids(V, (2 + 3 * rank,), seed=20 + rank) for rank in range(world_size)]
    for part in uneven:
        part[1] = IGNORED
    kinds = [even, uneven, [part[0] for part in uneven]]
    if world_size > 1:
        kinds.append([*even[:-1], even[-1][:0]])
        kinds.append([torch.full((5,), IGNORED), *uneven[1:]])
    return kinds
