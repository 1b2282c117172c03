"""The state of a model with sharded tables, and of its optimizers, whole and in plain tensors: for files of any kind.

    state = gather_state(model, optimizer)                          # on all ranks; whole on rank 0
    if rank == 0:
        safetensors.torch.save_file(state, file)

    state = safetensors.torch.load_file(file) if rank == 0 else None
    load_state(model, state, optimizer)                             # any number of ranks, any layout

Tables are there by id, under the names that an nn.Embedding in their place would have; so the state of a model without
sharded tables can be loaded, and the other way round. The state of optimizer n is called "optimizer/n/PARAMETER/KEY";
what in it is no tensor is JSON, as bytes, in "optimizer/n/settings".
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded.companions.naming import Optimizers, as_list, named_parameters, settings_of
from dist_s2s.sharded.exchange.shard import TableShard
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.optimizer_state import check_alike_on_ranks, current_state, has_rows, table_of
from dist_s2s.sharded.tables.resharding import gather_whole
from dist_s2s.sharded.tables.state import EXTRA_STATE
from dist_s2s.sharded.transport.group import AGREED_ERRORS, RankGroup
from dist_s2s.sharded.transport.making import find_group
from dist_s2s.sharded.transport.protocol import Subject

_GATHERING = Subject("the gathering of a model's state")


def gather_state(model: nn.Module, optimizers: Optimizers = None, dst: int = 0) -> dict[str, Tensor]:
    """Return the whole state of a model and its optimizers on rank ``dst``; {} on the others (collective).

    It is a copy, on the CPU, of all that is needed to go on exactly, and safetensors.torch.save_file takes it. Rows
    travel in pieces of 16 MiB.

    Args:
        model: all its tables belong to the same ranks; it may have none.
        optimizers: one or several.
        dst: a rank of the tables' group; of several replicas, the first returns the state.

    Raises:
        ValueError, TypeError: on every rank, if ranks differ in what they have, for a ``dst`` that is no rank, and for
            state that is neither a tensor nor a number, or that depends on other rows of a rank's shard.
    """
    group = group_of(model)
    error: Exception | None = None
    parts: dict[str, tuple[Tensor, TableShard | None]] = {}
    try:
        if not 0 <= dst < group.size:
            raise ValueError(f"dst must be a rank of the tables' group, within [0, {group.size}), but is {dst}")
        parts = model_parts(model)
        for number, optimizer in enumerate(as_list(optimizers)):
            parts |= _optimizer_parts(model, optimizer, number)
    except (ValueError, TypeError) as caught:
        error = caught
    agree_everywhere(group, _GATHERING, error)
    group.check_same({"dst": dst, "what there is to gather": sorted(parts)}, _GATHERING)
    if group.replicas.rank > 0:
        return {}
    state, here = {}, group.rank == dst
    for name, (tensor, table) in parts.items():
        if table is not None:
            whole = gather_whole(tensor, table.partition, table.group, dst)
            if whole is not None:
                state[name] = whole.cpu()
        elif here:
            state[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return state


def group_of(model: nn.Module) -> RankGroup:
    """Return the ranks that share the model's tables; all ranks, if it has none (collective then)."""
    groups = [module.group for module in model.modules() if isinstance(module, DistributedEmbedding)]
    if not groups:
        return find_group("auto", None, None, torch.device("cpu"))
    if len({(group.rank, group.size, group.replicas.rank, group.replicas.size) for group in groups}) > 1:
        raise ValueError(
            "the model's tables belong to different ranks; handle the modules with tables of each by itself"
        )
    return groups[0]


def agree_everywhere(group: RankGroup, subject: Subject, error: Exception | None) -> None:
    """Raise the error of any rank, of whichever replica, on all of them (collective)."""
    try:
        group.agree(subject, error)
    except AGREED_ERRORS as caught:
        error = caught
    group.replicas.agree(subject, error)
    if error is not None:  # without replicas
        raise error


def model_parts(model: nn.Module) -> dict[str, tuple[Tensor, TableShard | None]]:
    """Return a model's state by name: a tensor, and None or the table whose local rows it is."""
    tables = {
        f"{name}.weight" if name else "weight": module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, DistributedEmbedding)
    }
    extra = {extra_state_of(name) for name in tables}
    parts: dict[str, tuple[Tensor, TableShard | None]] = {}
    for name, value in model.state_dict().items():
        if name in tables:
            parts[name] = tables[name].weight.detach(), tables[name]
        elif isinstance(value, Tensor):
            parts[name] = value, None
        elif name not in extra:
            raise TypeError(f"{name} of the model's state is no tensor, but {type(value).__name__}; save it by itself")
    return {name: part for name, part in parts.items() if name not in extra}


def extra_state_of(weight: str) -> str:
    """Return the name beside that of a table's weight in its own state_dict; a whole state does without."""
    return weight.removesuffix("weight") + EXTRA_STATE


def _optimizer_parts(
    model: nn.Module, optimizer: Optimizer, number: int
) -> dict[str, tuple[Tensor, TableShard | None]]:
    """Return an optimizer's state likewise, with its settings, and what of the state is no tensor, as JSON."""
    parts: dict[str, tuple[Tensor, TableShard | None]] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for name, parameter in named_parameters(model, optimizer).items():
        table = table_of(parameter)
        for key, value in current_state(optimizer, parameter, name).items():
            if not isinstance(value, Tensor):
                numbers.setdefault(name, {})[key] = value
            else:
                dense = value.to_dense() if value.is_sparse else value  # torch.optim.SGD's momentum is sparse
                with_rows = table is not None and has_rows(dense, parameter)
                if table is not None and not with_rows:
                    check_alike_on_ranks(dense, table, f"{key} of {name}")
                parts[state_name(number, name, key)] = dense, table if with_rows else None
    text = json.dumps({"groups": settings_of(model, optimizer), "numbers": numbers})
    parts[settings_name(number)] = torch.tensor(list(text.encode()), dtype=torch.uint8), None
    return parts


def settings_name(number: int) -> str:
    """Return what the settings of an optimizer are called."""
    return f"optimizer/{number}/settings"


def state_name(number: int, parameter: str, key: str) -> str:
    """Return what a tensor of an optimizer's state is called."""
    return f"optimizer/{number}/{parameter}/{key}"


def settings_in(state: Mapping[str, Tensor], number: int) -> dict[str, Any]:
    """Return the settings and numbers of an optimizer. Raises a ValueError if there are none."""
    if settings_name(number) not in state:
        raise ValueError(
            f"the state holds nothing of optimizer {number}: it has no {settings_name(number)}; gather it with the "
            "optimizers, or load the model alone"
        )
    settings: dict[str, Any] = json.loads(bytes(state[settings_name(number)].tolist()))
    return settings
