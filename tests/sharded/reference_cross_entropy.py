"""Cross-entropies to compute on ranks, and F.cross_entropy with the whole table and the tokens of all ranks."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy

from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from tests.sharded.reference import assemble, random_ids, random_rows

V, H = 131, 5
IGNORED = -100


@dataclass(frozen=True)
class Case:
    """targets: by rank; settings: of the loss."""

    targets: list[Tensor]
    num_embeddings: int = V
    layout: str = "contiguous"
    grad_reduction: str = "mean"
    has_bias: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, group: dist.ProcessGroup | None) -> VocabParallelCrossEntropy:
        options = {"layout": self.layout, "grad_reduction": self.grad_reduction, "process_group": group}
        table = DistributedEmbedding(self.num_embeddings, H, seed=7, dtype=torch.float64, **options)
        bias = DistributedEmbedding(self.num_embeddings, 1, seed=8, dtype=torch.float64, **options)
        return VocabParallelCrossEntropy(table, bias if self.has_bias else None, **self.settings)

    def hidden(self, rank: int) -> Tensor:
        return random_rows((*self.targets[rank].shape, H), seed=rank).requires_grad_()


@dataclass(frozen=True)
class Result:
    """Of one rank."""

    loss: Tensor
    token_losses: Tensor
    hidden_gradient: Tensor
    weight: Tensor
    weight_gradient: Tensor
    bias: Tensor
    bias_gradient: Tensor


def compute(group: dist.ProcessGroup | None, cases: list[Case]) -> list[Result]:
    rank, results = 0 if group is None else dist.get_rank(group), []
    for case in cases:
        output, hidden = case.build(group), case.hidden(rank)
        loss = output(hidden, case.targets[rank])
        (3 * loss).backward()
        table, bias = output.table, output.table if output.bias is None else output.bias
        token_losses = output.token_losses(hidden, case.targets[rank])
        assert not token_losses.requires_grad
        tensors = (loss, token_losses, hidden.grad, table.weight, table.weight.grad, bias.weight, bias.weight.grad)
        results.append(Result(*(tensor.detach() for tensor in tensors)))
    return results


def compare(case: Case, results: list[Result]) -> None:
    weight = assemble([result.weight for result in results], case.layout).requires_grad_()
    bias = assemble([result.bias for result in results], case.layout).requires_grad_()
    settings = {name: case.settings[name] for name in ("label_smoothing", "ignore_index") if name in case.settings}
    num_classes, reduction = case.settings.get("num_classes"), case.settings.get("reduction", "mean")
    hidden = [case.hidden(rank) for rank in range(len(results))]

    def losses(how: str, hidden: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        logits = [x.reshape(-1, H) @ weight.t() + (bias[:, 0] if case.has_bias else 0) for x in hidden]
        return [
            cross_entropy(x[:, :num_classes], target.flatten(), reduction=how, **settings)
            for x, target in zip(logits, targets, strict=True)
        ]

    expected = losses("sum", hidden, case.targets)
    if reduction == "mean":
        count = sum(int((target != settings.get("ignore_index", IGNORED)).sum()) for target in case.targets)
        expected = [loss * len(results) / count if count else loss * torch.nan for loss in expected]
        everyone = [torch.cat([x.reshape(-1, H) for x in hidden])], [torch.cat([t.flatten() for t in case.targets])]
        close(torch.stack([result.loss for result in results]).mean(), losses("mean", *everyone)[0].detach())
    each = losses("none", hidden, case.targets)
    for result, loss, of_tokens in zip(results, expected, each, strict=True):
        close(result.loss, loss.detach())
        close(result.token_losses.flatten(), of_tokens.detach())
    (3 * sum(expected)).nan_to_num().backward()
    for result, x in zip(results, hidden, strict=True):
        close(result.hidden_gradient, x.grad)
    divisor = len(results) if case.grad_reduction == "mean" else 1
    close(assemble([r.weight_gradient for r in results], case.layout), weight.grad / divisor)
    if case.has_bias:
        close(assemble([r.bias_gradient for r in results], case.layout), bias.grad / divisor)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9, equal_nan=True)


def targets_of(world_size: int, num_classes: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """By rank; about a quarter of them is ignored."""
    targets = [random_ids(num_classes, shapes[rank % len(shapes)], seed=rank) for rank in range(world_size)]
    return [target.masked_fill(random_ids(4, target.shape, seed=90 + target.dim()) == 0, IGNORED) for target in targets]
