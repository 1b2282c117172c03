"""What training changes, and how its replicated part is told in tensors and numbers.

The optimizers' state is that of parameter 0, 1, and so on: a tensor "core_optimizer.3.exp_avg", a number "3.step".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.tables.optimizer_state import row_state


@dataclass(frozen=True)
class TrainingState:
    """Everything that training changes: what a checkpoint holds."""

    core: nn.Module
    core_optimizer: Optimizer
    tables: Mapping[str, DistributedEmbedding]
    table_optimizer: Optimizer  # over the tables' weights, in their order

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Both optimizers, by the names that their state has in a checkpoint."""
        return {"core_optimizer": self.core_optimizer, "table_optimizer": self.table_optimizer}


def replicated_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Return the model's tensors and those of its optimizers' state that are not rows of a shard."""
    tensors = {f"model.{key}": value for key, value in state.core.state_dict().items()}
    for name, optimizer in state.optimizers.items():
        for number, parameter in enumerate(_parameters(optimizer)):
            in_shards = row_state(optimizer, parameter) if name == "table_optimizer" else {}
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor) and key not in in_shards:
                    tensors[f"{name}.{number}.{key}"] = value
    return tensors


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
