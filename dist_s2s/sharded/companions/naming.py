"""What the parts of a model and of its optimizers are called in a saved state: by the model's names of parameters."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

Optimizers = Optimizer | Iterable[Optimizer] | None


def as_list(optimizers: Optimizers) -> list[Optimizer]:
    """Return the optimizers, also if it is but one, or none."""
    return [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers or ())


def named_parameters(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's parameters in its order, by their names in the model.

    Raises:
        ValueError: for a parameter that the model does not have.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    named: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                raise ValueError(
                    f"{type(optimizer).__name__} has a parameter of shape {list(parameter.shape)} that is not one of "
                    "the model; pass the model that it trains"
                )
            named[names[parameter]] = parameter
    return named


def settings_of(model: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups, with the names of parameters, and numbers for tensors such as lr."""
    names = {parameter: name for name, parameter in named_parameters(model, optimizer).items()}
    return [
        {
            **{key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()},
            "params": [names[parameter] for parameter in group["params"]],
        }
        for group in optimizer.param_groups
    ]


def check_settings_fit(model: nn.Module, optimizer: Optimizer, settings: list[dict[str, Any]]) -> None:
    """Raise a ValueError unless saved settings are of the same parameters, in the same groups."""
    saved, own = ([group["params"] for group in groups] for groups in (settings, settings_of(model, optimizer)))
    if saved != own:
        raise ValueError(
            f"the saved state of {type(optimizer).__name__} has the parameter groups {saved}, but this one has {own}"
        )


def load_named(
    model: nn.Module, optimizer: Optimizer, state: dict[str, dict[str, Any]], settings: list[dict[str, Any]]
) -> None:
    """Load an optimizer's state by names of parameters, with this rank's rows of tables, and its settings."""
    numbers = {name: number for number, name in enumerate(named_parameters(model, optimizer))}
    groups = [
        {**{key: _like(value, group.get(key)) for key, value in saved.items()}, "params": own["params"]}
        for group, saved, own in zip(
            optimizer.param_groups, settings, optimizer.state_dict()["param_groups"], strict=True
        )
    ]
    optimizer.load_state_dict(
        {"state": {numbers[name]: values for name, values in state.items()}, "param_groups": groups}
    )


def _like(value: Any, current: Any) -> Any:
    """Return a saved setting as the optimizer has it: tuples come back as lists, tensors as numbers."""
    if isinstance(current, Tensor):
        return current.clone().fill_(value)
    return tuple(value) if isinstance(current, tuple) else value
