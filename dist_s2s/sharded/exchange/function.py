"""The differentiable part of a lookup: from shards to outputs, and from their gradients to those of the shards."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dist_s2s.sharded.exchange.gradients import shard_gradient
from dist_s2s.sharded.exchange.route import Route


class Lookup(torch.autograd.Function):
    """Follows a route there and back."""

    @staticmethod
    def forward(ctx: Any, route: Route, *weights: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of each of the route's tables (collective); ``weights`` are their shards."""
        ctx.route = route
        # Autograd frees what is saved here, and only therefore refuses a second backward without retain_graph.
        ctx.save_for_backward(torch.empty(0))
        rows = route.fetch()
        ctx.mark_non_differentiable(*(r for r, weight in zip(rows, weights, strict=True) if not weight.requires_grad))
        return tuple(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the sparse gradients of the shards that need one (collective)."""
        assert len(ctx.saved_tensors) == 1  # raises what autograd says of a second backward
        needed = [place for place, needs in enumerate(ctx.needs_input_grad[1:]) if needs]
        returned = ctx.route.give_back(needed, [grad_outputs[place] for place in needed])
        gradients: list[Tensor | None] = [None] * len(grad_outputs)
        for place, arrived in zip(needed, returned, strict=True):
            gradients[place] = shard_gradient(ctx.route.tables[place], arrived.requested, arrived.values)
        return None, *gradients
