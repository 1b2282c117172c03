"""Loading of a whole state, as ``gather_state`` returns it, into a model with sharded tables and its optimizers."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded.companions.gathering import (
    agree_everywhere,
    extra_state_of,
    group_of,
    model_parts,
    settings_in,
    state_name,
)
from dist_s2s.sharded.companions.naming import Optimizers, as_list, check_settings_fit, load_named, named_parameters
from dist_s2s.sharded.exchange.shard import TableShard
from dist_s2s.sharded.tables.distributed_rows import DistributedRows
from dist_s2s.sharded.tables.optimizer_state import is_of_all_rows, table_of
from dist_s2s.sharded.tables.resharding import PIECE_BYTES, scatter_whole
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject

_LOADING = Subject("the loading of a model's state")


def load_state(
    model: nn.Module, state: Mapping[str, Tensor] | None, optimizers: Optimizers = None, src: int = 0
) -> None:
    """Load what ``gather_state`` returned, on any number of ranks and in any layout (collective).

    Rank ``src`` tells the others what there is; then it sends each replicated tensor to all ranks, and each row to its
    owner, in pieces of 16 MiB.

    Args:
        model: all its tables belong to the same ranks; it may have none.
        state: counts on rank ``src`` alone (of the first replica), and may be None elsewhere. The state_dict of a model
            with nn.Embedding in place of the tables will do.
        optimizers: as when it was gathered; without, the model alone is loaded.
        src: a rank of the tables' group.

    Raises:
        ValueError, TypeError: on every rank, before anything is loaded, for the state of another model or other
            optimizers, and for one that is not whole.
    """
    group, optimizers = group_of(model), as_list(optimizers)
    given = state if (group.rank, group.replicas.rank) == (src, 0) else None
    contents = _tell(given, len(optimizers), group, src)
    error: Exception | None = None
    try:
        _check_model(model, contents["shapes"])
        for number, optimizer in enumerate(optimizers):
            _check_optimizer(model, optimizer, number, contents)
    except ValueError as caught:
        error = caught
    agree_everywhere(group, _LOADING, error)

    sender = _Sender(given, contents, group, src)
    parts = model_parts(model)
    for name, (local, table) in parts.items():
        if table is not None:
            sender.fill(name, local, table)
    replicated = {name: sender.replicated(name) for name, (_, table) in parts.items() if table is None}
    model.load_state_dict(replicated, strict=False)  # the names were checked
    for number, optimizer in enumerate(optimizers):
        settings = contents["settings"][number]
        loaded: dict[str, dict[str, Any]] = {name: dict(values) for name, values in settings["numbers"].items()}
        for name, parameter in named_parameters(model, optimizer).items():
            for key in _keys_of(contents["shapes"], number, name):
                value = sender.of_optimizer(state_name(number, name, key), parameter)
                loaded.setdefault(name, {})[key] = value
        load_named(model, optimizer, loaded, settings["groups"])


class _Sender:
    """Receives on all ranks what one of them brings. Every method is collective."""

    def __init__(
        self, state: Mapping[str, Tensor] | None, contents: dict[str, Any], group: RankGroup, src: int
    ) -> None:
        self.state, self.shapes, self.dtypes = state, contents["shapes"], contents["dtypes"]
        self.group, self.src = group, src

    def fill(self, name: str, local: Tensor, table: TableShard) -> None:
        """Put each row of a whole tensor into ``local``, [shard rows, ...], of its owner."""
        whole = None if self.state is None else self.state[name]
        scatter_whole(whole, local, table.partition, table.group, self.src)

    def replicated(self, name: str) -> Tensor:
        """Return a tensor, on the device of the ranks' group."""
        group, shape, dtype = self.group, self.shapes[name], getattr(torch, self.dtypes[name])
        value = torch.empty(shape, dtype=dtype, device=group.device)
        if self.state is not None:
            value.copy_(self.state[name])
        data = value.view(-1).view(torch.uint8)
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            if group.replicas.rank == 0:
                piece.copy_(group.gather(piece if group.rank == self.src else piece[:0], _LOADING))
            if group.replicas.size > 1:
                piece.copy_(group.replicas.gather(piece if group.replicas.rank == 0 else piece[:0], _LOADING))
        return value

    def of_optimizer(self, name: str, parameter: Tensor) -> Tensor:
        """Return a tensor of a parameter's state: this rank's rows, if it has a row for each row of a table."""
        table, shape = table_of(parameter), self.shapes[name]
        if table is None or shape[:1] != [table.partition.num_rows]:
            return self.replicated(name)
        dtype = getattr(torch, self.dtypes[name])
        local = torch.zeros(len(parameter), *shape[1:], dtype=dtype, device=parameter.device)
        self.fill(name, local, table)
        return local


def _tell(state: Mapping[str, Tensor] | None, num_optimizers: int, group: RankGroup, src: int) -> dict[str, Any]:
    """Return what a rank's state holds, on all ranks: names, shapes and dtypes, and the optimizers' settings."""
    error: Exception | None = None
    text = ""
    try:
        if not 0 <= src < group.size:
            raise ValueError(f"src must be a rank of the tables' group, within [0, {group.size}), but is {src}")
        if (group.rank, group.replicas.rank) == (src, 0):
            if state is None:
                raise ValueError(f"rank {src} is to bring the state, but it is None there")
            for name, value in state.items():
                if not isinstance(value, Tensor) or isinstance(value, DistributedRows):
                    raise TypeError(
                        f"the state must hold whole tensors, as gather_state returns them, but {name} is of type "
                        f"{type(value).__name__}"
                    )
            contents = {
                "shapes": {name: list(value.shape) for name, value in state.items()},
                "dtypes": {name: str(value.dtype).removeprefix("torch.") for name, value in state.items()},
                "settings": [settings_in(state, number) for number in range(num_optimizers)],
            }
            text = json.dumps(contents)
    except (TypeError, ValueError) as caught:
        error = caught
    agree_everywhere(group, _LOADING, error)
    group.check_same({"src": src, "the number of optimizers": num_optimizers}, _LOADING)
    text = group.gather_texts(text, _LOADING)[src]
    told: dict[str, Any] = json.loads(group.replicas.gather_texts(text, _LOADING)[0])
    return told


def _check_model(model: nn.Module, shapes: dict[str, list[int]]) -> None:
    """Raise a ValueError unless the state has the model's names and shapes."""
    parts = model_parts(model)
    wanted = {
        name: [table.partition.num_rows, *value.shape[1:]] if table is not None else list(value.shape)
        for name, (value, table) in parts.items()
    }
    of_tables = {extra_state_of(name) for name, (_, table) in parts.items() if table is not None}
    given = {name for name in shapes if not name.startswith("optimizer/")} - of_tables
    for kind, names in (("lacks", wanted.keys() - given), ("has, but the model has not,", given - wanted.keys())):
        if names:
            raise ValueError(f"the state is that of another model: it {kind} {', '.join(sorted(names))}")
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise ValueError(f"size mismatch for {name}: the state has {shapes[name]}, but the model {shape}")


def _check_optimizer(model: nn.Module, optimizer: Optimizer, number: int, contents: dict[str, Any]) -> None:
    """Raise a ValueError unless the state is of an optimizer of the same parameters, and tables have all their rows."""
    check_settings_fit(model, optimizer, contents["settings"][number]["groups"])
    for name, parameter in named_parameters(model, optimizer).items():
        table = table_of(parameter)
        for key in _keys_of(contents["shapes"], number, name):
            shape = contents["shapes"][state_name(number, name, key)]
            if table is None or is_of_all_rows(shape, table):
                continue
            if shape[0] != table.partition.num_rows:
                raise ValueError(
                    f"size mismatch for {key} of {name}: the state has {shape[0]} rows, but the table "
                    f"{table.partition.num_rows}"
                )


def _keys_of(shapes: dict[str, list[int]], number: int, parameter: str) -> list[str]:
    """Return the keys of a parameter's state, in the order in which they were told to all ranks."""
    prefix = state_name(number, parameter, "")
    return [name.removeprefix(prefix) for name in shapes if name.startswith(prefix)]
