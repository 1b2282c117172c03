"""Optimizers for sharded tables that touch only the rows in the gradient, and clipping by the global norm."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded.embedding import DistributedEmbedding


class RowWiseAdagrad(Optimizer):
    """Adagrad (Duchi et al. 2011) with one accumulator per row instead of one per element.

    For each row in the gradient g: ``sum += mean(g²)``, ``row -= lr · g / (sqrt(sum) + eps)``. The state takes 1/D of
    the table's own memory. Gradients must be sparse. Communicates nothing: every shard updates itself.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1e-2, eps: float = 1e-10
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr must not be negative, but is {lr}")
        if eps < 0:
            raise ValueError(f"eps must not be negative, but is {eps}")
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every row that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["eps"])
        return loss

    def _update(self, parameter: Tensor, lr: float, eps: float) -> None:
        if parameter.grad is None or not parameter.grad.is_sparse:
            raise TypeError("RowWiseAdagrad needs sparse gradients; give dense parameters to torch.optim.Adagrad")
        state = self.state[parameter]
        if not state:
            state["sum"] = parameter.new_zeros(len(parameter))
        gradient = parameter.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        # The norm squared is measured at half the cost of the mean of squares.
        mean_square = torch.linalg.vector_norm(values, dim=1).square_().div_(values.shape[1])
        total = state["sum"].index_select(0, rows).add_(mean_square)
        state["sum"].index_copy_(0, rows, total)
        step_size = total.sqrt_().add_(eps).reciprocal_().mul_(-lr)
        parameter.index_add_(0, rows, values * step_size[:, None])


def clip_grad_norm_(
    dense: nn.Module | Iterable[Tensor], tables: Iterable[DistributedEmbedding], max_norm: float
) -> Tensor:
    """Scales all gradients so that their global norm is at most ``max_norm``; returns the norm before, float64.

    The norm counts each replicated parameter once and every shard of every table: dense norm² + all_reduce(shard
    norm²), one all_reduce for each process group among the tables. All ranks must call it, and get the same number, so
    that replicas stay equal. If the norm is not finite, the gradients stay as they were.
    """
    dense = dense.parameters() if isinstance(dense, nn.Module) else dense
    dense_gradients = [parameter.grad for parameter in dense if parameter.grad is not None]
    squares_of_group: dict[dist.ProcessGroup | None, Tensor] = {}
    table_gradients = []
    for table in tables:
        square = squares_of_group.setdefault(
            table.process_group, torch.zeros((), dtype=torch.float64, device=table.weight.device)
        )
        if table.weight.grad is not None:
            values = table.weight.grad.coalesce().values()
            table_gradients.append(values)
            square += torch.linalg.vector_norm(values, dtype=torch.float64).square()
    for group, square in squares_of_group.items():
        if group is not None:
            dist.all_reduce(square, group=group)
    total = sum(squares_of_group.values(), torch.zeros((), dtype=torch.float64))
    if dense_gradients:
        dense_norm = nn.utils.get_total_norm(dense_gradients)
        total = total.to(dense_norm.device) + dense_norm.double().square()
    norm = total.sqrt()
    if torch.isfinite(norm) and norm > max_norm:
        scale = float(max_norm / norm)
        for gradient in dense_gradients + table_gradients:
            gradient.mul_(scale)
    return norm
