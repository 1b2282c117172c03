"""Optimizers for sharded tables: they update only the rows in the gradient, and call no collectives.

Each rank updates its own shard. A row's new value depends on that row, its gradient and its state alone, so a sharded
table learns exactly as an unsharded one. The optimizers take parameters of shape [rows, D], such as
``DistributedEmbedding.weight``, with either a sparse gradient, of which only the rows are updated, or a dense one (from
a table that is also an output layer), for which every row is updated. Arguments are those of torch.optim.

They are *lazy*: a row that is not in the gradient keeps its value and its state bit by bit. Momentum and moments decay,
and weight decay applies, only in steps in which the row is in the gradient. ``weight_decay`` is decoupled as in AdamW
(Loshchilov & Hutter 2019): ``row -= lr · weight_decay · row``.

State: ``step``, a Python int that counts the shard's updates, and tensors whose first dimension is the shard's rows;
they start as zeros. So rows can be saved, moved and reset together with their state. For tables in bfloat16 or float16,
state and arithmetic are float32, and each row is rounded once, when it is written.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dist_s2s.sharded.tables.optimizer_state import own_state_dict, saved_state

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


class _RowOptimizer(Optimizer, ABC):
    """Loops over tables, rows and state; a subclass supplies the formula for the rows of one table."""

    @abstractmethod
    def _state_shapes(self, shape: torch.Size, group: dict[str, Any]) -> dict[str, torch.Size]:
        """Return the shape of each state tensor, [rows, D] or [rows], for a shard of shape [rows, D]."""

    @abstractmethod
    def _change(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: int) -> Tensor:
        """Return what to add to M rows, a new tensor of shape [M, D].

        Args:
            gradient: of these rows, [M, D].
            state: of these rows, [M, D] or [M]; updated in place.
            group: the settings of the parameter group.
            step: how many updates the shard has had, this one included.
        """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, as in torch.optim.

        Raises:
            ValueError: for a setting that is out of range, or a parameter whose shape is not [rows, D].
        """
        settings = {**self.defaults, **param_group}
        for name in ("lr", "momentum", "weight_decay"):
            if not settings.get(name, 0) >= 0:
                raise ValueError(f"{name} must not be negative, but is {settings[name]}")
        if not settings.get("eps", 1) > 0:  # with 0 a row whose gradient is all zeros would become nan
            raise ValueError(f"eps must be positive, but is {settings['eps']}")
        if not all(0 <= beta < 1 for beta in settings.get("betas", ())):
            raise ValueError(f"betas must be within [0, 1), but are {settings['betas']}")
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.dim() != 2:
                raise ValueError(
                    f"{type(self).__name__} is for tables of shape [rows, D], but a parameter has shape "
                    f"{list(parameter.shape)}; give it to an optimizer of torch.optim"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every row that has a gradient; return the closure's loss, if there is a closure (local)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    saves_distributed_rows = True  # by itself, without the hooks that torch's optimizers get

    def state_dict(self) -> dict[str, Any]:
        """Return the state as in torch.optim; that of tables which are sharded as DistributedRows (local)."""
        return saved_state(self, super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as in torch.optim, but keep it in float32 for tables in bfloat16 or float16.

        Of sharded tables it takes what state_dict gives, this rank's rows, or all rows by id. Collective only for a
        round-robin table that was saved on another number of ranks.

        Raises:
            ValueError: for state of another number of rows.
        """
        state_dict = own_state_dict(self, state_dict)
        super().load_state_dict(state_dict)
        numbers = (number for group in state_dict["param_groups"] for number in group["params"])
        parameters = (parameter for group in self.param_groups for parameter in group["params"])
        for number, parameter in zip(numbers, parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    self.state[parameter][name] = value.to(parameter.device, _arithmetic_dtype(parameter))

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        rows = None  # all of them
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, gradient = gradient.indices()[0], gradient.values()
        dtype = _arithmetic_dtype(parameter)
        state = self.state[parameter]
        state["step"] = state.get("step", 0) + 1
        touched = {}
        for name, shape in self._state_shapes(parameter.shape, group).items():
            if name not in state:
                state[name] = parameter.new_zeros(shape, dtype=dtype)
            touched[name] = state[name] if rows is None else state[name].index_select(0, rows)
        change = self._change(gradient.to(dtype), touched, group, state["step"])
        if rows is not None:
            for name, values in touched.items():
                state[name].index_copy_(0, rows, values)
        _add(parameter, rows, change, decay=group["lr"] * group["weight_decay"])


class SparseSGD(_RowOptimizer):
    """Stochastic gradient descent with lazy heavy-ball momentum (Polyak 1964).

    For each row with gradient g: ``momentum_buffer = momentum · momentum_buffer + g``,
    ``row -= lr · momentum_buffer``. These are the formulas of torch.optim.SGD, whose momentum, however, also moves rows
    that are not in the gradient. State: [rows, D] with momentum, none without.
    """

    def __init__(
        self, params: Parameters, lr: float = 1e-3, momentum: float = 0.0, *, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _state_shapes(self, shape: torch.Size, group: dict[str, Any]) -> dict[str, torch.Size]:
        return {"momentum_buffer": shape} if group["momentum"] else {}

    def _change(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: int) -> Tensor:
        if group["momentum"]:
            gradient = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        return gradient.mul(-group["lr"])


class SparseAdagrad(_RowOptimizer):
    """Adagrad (Duchi et al. 2011), with the results of torch.optim.Adagrad.

    For each row with gradient g: ``sum += g²``, ``row -= lr · g / (sqrt(sum) + eps)``. State: [rows, D].
    """

    def __init__(self, params: Parameters, lr: float = 1e-2, eps: float = 1e-10, *, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    def _state_shapes(self, shape: torch.Size, group: dict[str, Any]) -> dict[str, torch.Size]:
        return {"sum": shape}

    def _change(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: int) -> Tensor:
        total = state["sum"].addcmul_(gradient, gradient)
        return gradient.div(total.sqrt().add_(group["eps"])).mul_(-group["lr"])


class RowWiseAdagrad(SparseAdagrad):
    """Adagrad (Duchi et al. 2011) with one accumulator per row instead of one per element.

    For each row with gradient g: ``sum += mean(g²)``, ``row -= lr · g / (sqrt(sum) + eps)``. State: [rows], which is
    1/D of the table's size.
    """

    def _state_shapes(self, shape: torch.Size, group: dict[str, Any]) -> dict[str, torch.Size]:
        return {"sum": shape[:1]}

    def _change(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: int) -> Tensor:
        total = state["sum"].add_(_mean_square(gradient))
        return gradient.mul(total.sqrt().add_(group["eps"]).reciprocal_().mul_(-group["lr"])[:, None])


class SparseAdam(_RowOptimizer):
    """Lazy Adam (Kingma & Ba 2015), with the results of torch.optim.SparseAdam.

    For each row with gradient g, in the shard's step t: ``exp_avg += (1 - β₁) · (g - exp_avg)``,
    ``exp_avg_sq += (1 - β₂) · (g² - exp_avg_sq)``,
    ``row -= lr · sqrt(1 - β₂ᵗ) / (1 - β₁ᵗ) · exp_avg / (sqrt(exp_avg_sq) + eps)``. State: twice [rows, D].
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _state_shapes(self, shape: torch.Size, group: dict[str, Any]) -> dict[str, torch.Size]:
        return {"exp_avg": shape, "exp_avg_sq": shape}

    def _change(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: int) -> Tensor:
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        return _adam_change(mean, square, group, step)


class RowWiseAdam(SparseAdam):
    """SparseAdam with one second moment per row instead of one per element.

    The formulas are those of SparseAdam with mean(g²) in place of g². State: [rows, D] and [rows], about half of
    SparseAdam's.
    """

    def _state_shapes(self, shape: torch.Size, group: dict[str, Any]) -> dict[str, torch.Size]:
        return {"exp_avg": shape, "exp_avg_sq": shape[:1]}

    def _change(self, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], step: int) -> Tensor:
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).add_(_mean_square(gradient), alpha=1 - beta2)
        return _adam_change(mean, square[:, None], group, step)


def _adam_change(mean: Tensor, square: Tensor, group: dict[str, Any], step: int) -> Tensor:
    """Return Adam's change, [M, D], from its two moments, [M, D] and [M, D or 1]."""
    beta1, beta2 = group["betas"]
    step_size = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    return mean.div(square.sqrt().add_(group["eps"])).mul_(-step_size)


def _mean_square(gradient: Tensor) -> Tensor:
    """Return the mean square of each row, [M]. Measured: through the norm it takes half the time of square().mean()."""
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=1)
    return norm.square_().div_(gradient.shape[1])


def _arithmetic_dtype(parameter: Tensor) -> torch.dtype:
    """Return the table's dtype, or float32 if that is wider."""
    return torch.promote_types(parameter.dtype, torch.float32)


def _add(parameter: Tensor, rows: Tensor | None, change: Tensor, decay: float) -> None:
    """Set each of these rows, [M], or all of them if rows is None, to ``(1 - decay) · row + change``, in place."""
    if rows is not None and not decay and parameter.dtype == change.dtype:
        parameter.index_add_(0, rows, change)  # measured at half the cost of the three steps below
        return
    values = parameter if rows is None else parameter.index_select(0, rows)
    values = values.to(change.dtype)  # the parameter itself if it is dense and of that dtype
    if decay:
        values.mul_(1 - decay)
    values.add_(change)
    if rows is not None:
        parameter.index_copy_(0, rows, values.to(parameter.dtype))
    elif values is not parameter:
        parameter.copy_(values)
