"""Cross-entropy of a linear layer's logits, never whole: chunks of tokens, with the gradients in the same pass.

The idea is Liger Kernel's (Hsu et al. 2024, arXiv:2410.10989). torch's own F.linear_cross_entropy smooths no labels in
chunks. For a layer whose rows are divided among ranks see sharded/cross_entropy.py.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 22  # logits at a time


def linear_cross_entropy(
    layer: nn.Linear, hidden: Tensor, target: Tensor, ignore_index: int, label_smoothing: float = 0.0
) -> Tensor:
    """Return F.cross_entropy(layer(hidden), target, reduction="sum"), a scalar.

    It is float32, or float64 for float64 hidden. Matrix products are in hidden's dtype, or in torch.autocast's; sums
    and exponentials in that of the result. Backward can run once. Calls no collectives.

    Args:
        hidden: [..., H].
        target: int64 [...], classes or ignore_index.
    """
    counted = target != ignore_index
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden[counted], layer.weight, layer.bias, target[counted], label_smoothing, dtype
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """From hidden states [N, H], weight [V, H], bias [V] and targets [N] to the sum of losses."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor, smoothing: float, dtype: torch.dtype
    ) -> Tensor:
        sums = torch.promote_types(hidden.dtype, torch.float32)
        gradients: list[Tensor] = []
        if any(ctx.needs_input_grad):
            gradients = [torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)]
        total = hidden.new_zeros((), dtype=sums)
        with torch.autocast(hidden.device.type, enabled=False):
            narrow, narrow_weight = hidden.to(dtype), weight.to(dtype)
            size = max(1, CHUNK_ELEMENTS // len(weight))
            for start in range(0, len(hidden), size):
                tokens = slice(start, start + size)
                logits = (narrow[tokens] @ narrow_weight.t()).to(sums).add_(bias)
                total += _losses_and_gradient_(logits, target[tokens], smoothing).sum()
                if gradients:
                    factor = logits.to(dtype)
                    gradients[0][tokens] = factor @ narrow_weight
                    gradients[1].add_(factor.t() @ narrow[tokens])
                    gradients[2].add_(logits.sum(dim=0))
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "backward through linear_cross_entropy can run only once, because forward has computed the gradients "
                "and the first backward has given them away; call it again"
            )
        return *(gradient.mul_(grad_outputs[0]) for gradient in gradients), None, None, None


@torch.no_grad()
def linear_token_losses(
    layer: nn.Module, num_classes: int, hidden: Tensor, target: Tensor, ignore_index: int
) -> Tensor:
    """Return F.cross_entropy(layer(hidden), target, reduction="none"), without gradients; 0 where it is ignored.

    Arguments and dtype are those of ``linear_cross_entropy``; the layer may be of any kind. Calls no collectives.
    """
    counted = target != ignore_index
    kept, classes = hidden[counted], target[counted]
    losses = hidden.new_zeros(target.shape, dtype=torch.promote_types(hidden.dtype, torch.float32))
    size = max(1, CHUNK_ELEMENTS // num_classes)
    found = [
        _losses_and_gradient_(layer(states).to(losses.dtype), some, 0.0)
        for states, some in zip(kept.split(size), classes.split(size), strict=True)
    ]
    losses[counted] = torch.cat(found)
    return losses


def _losses_and_gradient_(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Return the losses [N] of logits [N, V], which become the gradient of their sum in place.

    With smoothing s: loss = (1 - s) · -log p(target) + s/V · sum over all classes of -log p.
    """
    places = target[:, None]
    of_target, mean = logits.gather(1, places)[:, 0], logits.mean(dim=1) if smoothing else 0.0
    largest = logits.amax(dim=1)
    exp_sum = logits.sub_(largest[:, None]).exp_().sum(dim=1)
    logits.mul_(exp_sum.reciprocal()[:, None])  # probabilities
    if smoothing:
        logits.sub_(smoothing / logits.shape[1])
    logits.scatter_add_(1, places, logits.new_full((1, 1), smoothing - 1).expand_as(places))
    return exp_sum.log() + (1 - smoothing) * (largest - of_target) + smoothing * (largest - mean)
