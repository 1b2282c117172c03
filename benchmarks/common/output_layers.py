"""The output layers that softmax_bench.py compares: each from hidden states and targets to a loss and gradients."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from dist_s2s.sharded import DistributedEmbedding, SampledSoftmaxLoss, VocabParallelCrossEntropy
from dist_s2s.translation.output.linear_cross_entropy import linear_cross_entropy

Kind = Literal["sharded", "replicated", "chunked", "torch_chunked", "sampled"]
TITLES: dict[Kind, str] = {
    "sharded": "sharded (ours)",
    "replicated": "nn.Linear on every rank",
    "chunked": "nn.Linear, in chunks (ours)",
    "torch_chunked": "nn.Linear, torch in chunks",
    "sampled": "sampled (ours)",
}
USUAL: tuple[Kind, ...] = ("sharded", "replicated")
CANDIDATES = 8192  # of the sampled layer


@dataclass(frozen=True)
class Problem:
    """The size of the layer and its batch; ``tokens`` are those of all ranks together, N."""

    tokens: int
    num_classes: int
    hidden_size: int
    label_smoothing: float = 0.1
    device: str = "cpu"


@dataclass(frozen=True)
class Batch:
    """One rank's hidden states, float32 [tokens, H], and targets, int64 [tokens]."""

    hidden: Tensor
    target: Tensor


class Contender:
    """An output layer and its loss."""

    def __init__(self, kind: Kind, problem: Problem, group: dist.ProcessGroup) -> None:
        self.kind, self.group, self.smoothing = kind, group, problem.label_smoothing
        std = problem.hidden_size**-0.5
        settings: dict[str, Any] = {"init_std": std, "process_group": group, "device": problem.device}
        table = DistributedEmbedding(problem.num_classes, problem.hidden_size, seed=1, **settings)
        bias = DistributedEmbedding(problem.num_classes, 1, seed=2, **settings)
        self.output: nn.Module
        if kind == "sharded":
            self.output = VocabParallelCrossEntropy(table, bias, label_smoothing=self.smoothing)
        elif kind == "sampled":
            self.output = SampledSoftmaxLoss(table, bias, num_samples=CANDIDATES, label_smoothing=self.smoothing)
        else:
            self.output = _whole_layer(table, bias)

    def step(self, batch: Batch) -> Tensor:
        """Run forward and backward (collective); return this rank's loss. Gradients are those of this step alone."""
        self.output.zero_grad()
        batch.hidden.grad = None
        loss = self._loss(batch.hidden, batch.target)
        loss.backward()
        if isinstance(self.output, nn.Linear) and dist.get_world_size(self.group) > 1:
            for parameter in self.output.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad.div_(dist.get_world_size(self.group)), group=self.group)
        return loss.detach()

    def _loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of the tokens."""
        layer, smoothing = self.output, self.smoothing
        if not isinstance(layer, nn.Linear):
            loss: Tensor = layer(hidden, target)
            return loss
        if self.kind == "replicated":
            return F.cross_entropy(layer(hidden), target, label_smoothing=smoothing)
        if self.kind == "chunked":
            return linear_cross_entropy(layer, hidden, target, ignore_index=-100, label_smoothing=smoothing) / len(
                target
            )
        options = torch.nn.LinearCrossEntropyOptions()
        return F.linear_cross_entropy(
            hidden, layer.weight, target, linear_bias=layer.bias, options=options, label_smoothing=smoothing
        )


def layers() -> tuple[Kind, ...]:
    """Return all layers that this torch has."""
    return tuple(kind for kind in get_args(Kind) if kind != "torch_chunked" or hasattr(F, "linear_cross_entropy"))


def _whole_layer(table: DistributedEmbedding, bias: DistributedEmbedding) -> nn.Linear:
    """Return the same output layer on one rank (collective)."""
    weight, column = table.to_embedding(), bias.to_embedding()
    assert weight is not None
    assert column is not None
    layer = nn.Linear(table.embedding_dim, table.num_embeddings, device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.weight.detach()), nn.Parameter(column.weight.detach()[:, 0])
    return layer
