"""What training changes, and how its replicated part is told in tensors and numbers.

The optimizers' state is that of parameter 0, 1, and so on: a tensor "core_optimizer.3.exp_avg", a number "3.step". The
average of a parameter of the model has the parameter's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.averaging import MovingAverage
from dist_s2s.sharded.tables.optimizer_state import row_state

_MODEL, _AVERAGE = "model.", "average."


@dataclass(frozen=True)
class TrainingState:
    """Everything that training changes: what a checkpoint holds."""

    core: nn.Module
    core_optimizer: Optimizer
    tables: Mapping[str, DistributedEmbedding]
    table_optimizer: Optimizer  # over the tables' weights, in their order
    average: MovingAverage | None = None  # of all weights

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Both optimizers, by the names that their state has in a checkpoint."""
        return {"core_optimizer": self.core_optimizer, "table_optimizer": self.table_optimizer}


def replicated_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Return the model's tensors, their averages, and what of the optimizers' state is not rows of a shard."""
    tensors = {f"{_MODEL}{key}": value for key, value in state.core.state_dict().items()}
    averages: Mapping[Tensor, Tensor] = {} if state.average is None else state.average.averages
    for key, weight in state.core.named_parameters():
        if weight in averages:
            tensors[f"{_AVERAGE}{key}"] = averages[weight]
    for name, optimizer in state.optimizers.items():
        for number, parameter in enumerate(_parameters(optimizer)):
            in_shards = row_state(optimizer, parameter) if name == "table_optimizer" else {}
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor) and key not in in_shards:
                    tensors[f"{name}.{number}.{key}"] = value
    return tensors


def model_tensors(tensors: Mapping[str, Tensor], *, averaged: bool) -> dict[str, Tensor]:
    """Return the model's tensors by their names in it, from ``replicated_tensors``.

    Args:
        averaged: take the average of those that have one.
    """
    model = {key.removeprefix(_MODEL): value for key, value in tensors.items() if key.startswith(_MODEL)}
    return {key: tensors.get(f"{_AVERAGE}{key}", value) for key, value in model.items()} if averaged else model


def load_average(
    state: TrainingState, tensors: Mapping[str, Tensor], rows: Mapping[str, tuple[Tensor, Tensor]], updates: int
) -> None:
    """Replace the average.

    Args:
        tensors: as ``replicated_tensors`` gives them.
        rows: by name of the table, the average of its rows and the updates that it knows.
        updates: how many it has followed.
    """
    assert state.average is not None
    parameters = dict(state.core.named_parameters())
    averages: dict[Tensor, Tensor] = {
        parameters[key.removeprefix(_AVERAGE)]: value for key, value in tensors.items() if key.startswith(_AVERAGE)
    }
    weights = {name: state.tables[name].weight for name in rows}
    averages |= {weights[name]: average for name, (average, _) in rows.items()}
    state.average.load(updates, averages, {weights[name]: known for name, (_, known) in rows.items()})


def scalars(state: TrainingState) -> dict[str, dict[str, Any]]:
    """Return those parts of each optimizer's state that are plain numbers, as "parameter.key"."""
    return {
        name: {
            f"{number}.{key}": value
            for number, parameter in enumerate(_parameters(optimizer))
            for key, value in optimizer.state[parameter].items()
            if not isinstance(value, Tensor)
        }
        for name, optimizer in state.optimizers.items()
    }


def saved_state(
    name: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return the state of one optimizer, {parameter: {key: value}}, from ``replicated_tensors`` and ``scalars``."""
    prefix = f"{name}."
    values = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    state: dict[int, dict[str, Any]] = {}
    for path, value in {**values, **numbers[name]}.items():
        number, key = path.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    return state


def load_optimizer(optimizer: Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Replace an optimizer's state; its settings stay."""
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
