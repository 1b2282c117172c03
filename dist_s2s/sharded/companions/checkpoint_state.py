"""A model with sharded tables and its optimizers, for torch.distributed.checkpoint (DCP)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded.companions.naming import (
    Optimizers,
    as_list,
    check_settings_fit,
    load_named,
    named_parameters,
    settings_of,
)
from dist_s2s.sharded.tables.optimizer_state import current_state, own_state, rows_as_saved, table_of


class CheckpointState:
    """What dcp.save, dcp.async_save and dcp.load take for a model and its optimizers.

    .. code-block:: python

        dcp.save({"training": CheckpointState(model, optimizers)}, checkpoint_id=folder)
        dcp.load({"training": CheckpointState(model, optimizers)}, checkpoint_id=folder)

    Tables and their rows of the optimizers' state are loaded on any number of ranks. The layout must be the one that
    was saved; ``gather_state`` and ``load_state`` change it. Optimizers go on where they were, settings included. One
    that has made no step yet makes an empty one, without an effect, so that DCP finds what to load into.

    Args:
        model: whose parameters name the state.
        optimizers: one or several, the same and in the same order when saving and loading.
    """

    def __init__(self, model: nn.Module, optimizers: Optimizers = None) -> None:
        self.model, self.optimizers = model, as_list(optimizers)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, nested, whose tensors share their memory with the model and the optimizers (local)."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {str(number): self._saved(optimizer) for number, optimizer in enumerate(self.optimizers)},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that DCP has filled (collective where the rows of round-robin tables move).

        Raises:
            RuntimeError, ValueError: for the state of another model or another optimizer.
        """
        saved = [state_dict["optimizers"][str(number)] for number in range(len(self.optimizers))]
        states = [
            self._own(optimizer, its["state"], its["settings"])
            for optimizer, its in zip(self.optimizers, saved, strict=True)
        ]
        self.model.load_state_dict(state_dict["model"])
        for optimizer, state, its in zip(self.optimizers, states, saved, strict=True):
            load_named(self.model, optimizer, state, its["settings"][0])

    def _own(
        self, optimizer: Optimizer, state: dict[str, dict[str, Any]], saved: tuple[list[dict[str, Any]], list[str]]
    ) -> dict[str, dict[str, Any]]:
        """Return an optimizer's state with this rank's rows of tables, if what was saved is of this optimizer."""
        settings, keys = saved
        check_settings_fit(self.model, optimizer, settings)
        missing = set(keys) - set(_keys(state))
        if missing:  # DCP loads what it is asked for, and is silent about the rest
            raise ValueError(
                f"the checkpoint has state that {type(optimizer).__name__} has not made: "
                f"{', '.join(sorted(missing))}; load into an optimizer that has made no step yet"
            )
        own = {}
        for name, parameter in named_parameters(self.model, optimizer).items():
            table = table_of(parameter)
            if name in state:
                own[name] = state[name] if table is None else own_state(state[name], table, name)
        return own

    def _saved(self, optimizer: Optimizer) -> dict[str, Any]:
        if not optimizer.state:
            _make_state(optimizer)
        state = {}
        for name, parameter in named_parameters(self.model, optimizer).items():
            values, table = current_state(optimizer, parameter, name), table_of(parameter)
            if values:
                state[name] = values if table is None else rows_as_saved(values, table, name)
        # A tuple, which DCP keeps in one piece, whatever it holds.
        return {"state": state, "settings": (settings_of(self.model, optimizer), _keys(state))}


def _keys(state: dict[str, dict[str, Any]]) -> list[str]:
    return [f"{name}.{key}" for name, values in state.items() for key in values]


@torch.no_grad()
def _make_state(optimizer: Optimizer) -> None:
    """Have an optimizer make the tensors of its state, in a step with gradients of zero and a learning rate of zero."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients, rates = (
        [parameter.grad for parameter in parameters],
        [group.get("lr") for group in optimizer.param_groups],
    )
    try:
        for parameter in parameters:
            if parameter.requires_grad:
                zeros = torch.zeros_like(parameter)
                parameter.grad = zeros.to_sparse(1) if isinstance(optimizer, torch.optim.SparseAdam) else zeros
        for group in (group for group in optimizer.param_groups if "lr" in group):
            group["lr"] = torch.zeros_like(group["lr"]) if isinstance(group["lr"], Tensor) else 0.0
        optimizer.step()
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            if "lr" in group:
                group["lr"] = rate
    for values in optimizer.state.values():  # as if there had been no step
        if "step" in values:
            values["step"] = torch.zeros_like(values["step"]) if isinstance(values["step"], Tensor) else 0
