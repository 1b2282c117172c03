"""What the optimizers for shards are measured against: torch's own, or dense formulas where torch has none."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Optimizer
from torch.optim import SparseAdam as TorchSparseAdam

from dist_s2s.sharded.optim import RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD


class LazyReference(Optimizer):
    """A whole table. A subclass computes all its rows, of which those in the sparse gradient are kept."""

    def __init__(self, parameters: list[Tensor], **settings: Any) -> None:
        super().__init__(parameters, settings)
        self.steps = 0
        self.slots: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        (group,) = self.param_groups
        (parameter,) = group["params"]
        self.steps += 1
        if not self.slots:
            self.slots = {name: torch.zeros_like(parameter) for name in ("first", "second")}
        touched = torch.zeros(len(parameter), 1, dtype=torch.bool)
        touched[parameter.grad.coalesce().indices()[0]] = True
        new = self.formula(parameter, parameter.grad.to_dense(), group)
        for name, old in {"parameter": parameter, **self.slots}.items():
            old.copy_(torch.where(touched, new.get(name, old), old))

    def formula(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        raise NotImplementedError


class LazyMomentum(LazyReference):
    def formula(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        velocity = group["momentum"] * self.slots["first"] + gradient
        return {"parameter": parameter - group["lr"] * velocity, "first": velocity}


class LazyRowWiseAdagrad(LazyReference):
    def formula(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        total = self.slots["second"] + gradient.pow(2).mean(1, keepdim=True)
        return {"parameter": parameter - group["lr"] * gradient / (total.sqrt() + group["eps"]), "second": total}


class LazyRowWiseAdam(LazyReference):
    def formula(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        beta1, beta2 = group["betas"]
        first = beta1 * self.slots["first"] + (1 - beta1) * gradient
        second = beta2 * self.slots["second"] + (1 - beta2) * gradient.pow(2).mean(1, keepdim=True)
        rate = group["lr"] * (1 - beta2**self.steps) ** 0.5 / (1 - beta1**self.steps)
        return {
            "parameter": parameter - rate * first / (second.sqrt() + group["eps"]),
            "first": first,
            "second": second,
        }


ADAM = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}
# The optimizer, what it is measured against, and the settings of both.
RULES: dict[str, tuple[type[Optimizer], type[Optimizer], dict[str, Any]]] = {
    "SGD": (SparseSGD, SGD, {"lr": 0.3}),
    "momentum": (SparseSGD, LazyMomentum, {"lr": 0.2, "momentum": 0.9}),
    "Adagrad": (SparseAdagrad, Adagrad, {"lr": 0.3}),
    "RowWiseAdagrad": (RowWiseAdagrad, LazyRowWiseAdagrad, {"lr": 0.3, "eps": 0.1}),
    "Adam": (SparseAdam, TorchSparseAdam, ADAM),
    "RowWiseAdam": (RowWiseAdam, LazyRowWiseAdam, ADAM),
}


@dataclass(frozen=True)
class Case:
    rule: str
    weight_decay: float = 0.0
    dense_steps: tuple[int, ...] = ()  # at these the table's gradient is dense

    def optimizer(self, parameter: Tensor) -> Optimizer:
        optimizer_type, _, settings = RULES[self.rule]
        return optimizer_type([parameter], **settings, weight_decay=self.weight_decay)

    def reference(self, parameter: Tensor) -> Optimizer:
        _, reference_type, settings = RULES[self.rule]
        return reference_type([parameter], **settings)
