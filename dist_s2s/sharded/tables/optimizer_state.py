"""An optimizer's state of sharded tables: a row for each row of the shard, which state_dict shows as DistributedRows.

A table's weight is known as such (``remember``), so an optimizer finds the table of a parameter. The optimizers of this
library save and load their state by ``saved_state`` and ``own_state``. torch's get there by hooks, which they receive
before their first step with a table's weight, when state that was loaded before is checked as well: without that, state
of another number of rows would be used in silence.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dist_s2s.sharded.exchange.shard import TableShard
from dist_s2s.sharded.tables.distributed_rows import DistributedRows, Shard
from dist_s2s.sharded.tables.saved_rows import as_saved, described, own_rows

# What tells, in the saved state of a parameter, how rows by position were divided: as DistributedEmbedding's
# get_extra_state does for the weight. A tuple of integers, which no optimizer converts to a parameter's dtype.
PARTITION = "partition"

_tables: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by id of the weight: swap_tensors allows no references
_checked: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()  # with how many groups of parameters it had then
_hooked: WeakSet[Optimizer] = WeakSet()


def remember(table: TableShard) -> None:
    """Make ``table_of(table.weight)`` known, and check optimizers before their first step from now on."""
    _tables[id(table.weight)] = table
    _check_first_steps()


def table_of(parameter: Tensor) -> TableShard | None:
    """Return the table whose weight a parameter is, or None."""
    table: TableShard | None = _tables.get(id(parameter))
    return table if table is not None and table.weight is parameter else None


def row_state(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """Return the optimizer's tensors that have a row for each row of the shard ``weight``."""
    state = optimizer.state.get(weight, {})
    return {key: value for key, value in state.items() if has_rows(value, weight)}


def has_rows(value: object, weight: Tensor) -> bool:
    """Tell whether a value of an optimizer's state has a row for each row of the shard ``weight``."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(weight)


def check_alike_on_ranks(value: object, table: TableShard, name: str) -> None:
    """Raise a TypeError if a value without a row for each row of the shard differs between ranks.

    Adafactor's col_var does, which is of all rows of a shard together; only numbers are alike.
    """
    if isinstance(value, Tensor) and value.dim() > 0 and table.group.size > 1:
        raise TypeError(
            f"{name}, of shape {list(value.shape)}, is not a row for each row, but depends on other rows of the shard, "
            "so that it differs between ranks; choose an optimizer that treats each row by itself"
        )


def is_of_all_rows(shape: Sequence[int], table: TableShard) -> bool:
    """Tell whether state of this shape is of no row alone: a number, or on one rank Adafactor's col_var, [1, D]."""
    return not shape or (table.group.size == 1 and shape[0] == 1)


def rows_as_saved(values: dict[str, Any], table: TableShard, name: str) -> dict[str, Any]:
    """Return the state of a table's weight in the form in which state_dict shows it.

    Args:
        values: an optimizer's state of the weight.
        table: whose weight it is.
        name: of the weight, for errors.
    """
    saved = dict(values)
    for key, value in values.items():
        if has_rows(value, table.weight):
            dense = value.to_dense() if value.is_sparse else value  # torch.optim.SGD's momentum is sparse
            saved[key] = as_saved(dense, _shard(table, key, name))
        else:
            check_alike_on_ranks(value, table, f"{key} of {name}")
    if table.partition.layout != "contiguous":
        saved[PARTITION] = table.partition.numbers
    return saved


def own_state(values: dict[str, Any], table: TableShard, name: str) -> dict[str, Any]:
    """Return this rank's state of a table's weight, from that of a state_dict; collective where rows move.

    Args:
        values: as ``rows_as_saved`` gives it; also with plain tensors of this rank's rows, or of all
            rows by id, and with what this rank's own file holds.
        table: whose weight it is.
        name: of the weight, for errors.

    Raises:
        ValueError: for state of another number of rows.
    """
    own, width = dict(values), table.embedding_dim
    old = described(own.pop(PARTITION, None))
    for key, value in own.items():
        if isinstance(value, Tensor):
            by_position = old is not None and value.shape[:2] == (1, old.num_rows)
            is_own = not isinstance(value, DistributedRows) and not by_position and has_rows(value, table.weight)
            if is_own or (is_of_all_rows(value.shape, table) and not by_position):
                continue
        elif not isinstance(value, dict):
            continue
        own[key] = own_rows(value, _shard(table, key, name), old, width)
    return own


def current_state(optimizer: Optimizer, parameter: Tensor, name: str) -> dict[str, Any]:
    """Return an optimizer's state of a parameter: this rank's, also of torch's optimizer that has only loaded it."""
    values, table = dict(optimizer.state.get(parameter, {})), table_of(parameter)
    return values if table is None or optimizer in _checked else own_state(values, table, name)


def _shard(table: TableShard, key: str, name: str) -> Shard:
    return Shard(table.partition, table.group, f"{key} of {name}", may_be_pickled=True)


def saved_state(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state_dict with all rows of tables that are divided among several ranks."""
    state = dict(state_dict["state"])
    for number, table in _numbered_tables(optimizer, state_dict):
        if number in state and table.group.size > 1:
            state[number] = rows_as_saved(state[number], table, f"parameter {number}")
    return {**state_dict, "state": state}


def own_state_dict(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state_dict with this rank's rows of tables; see ``own_state``."""
    state = dict(state_dict["state"])
    for number, table in _numbered_tables(optimizer, state_dict):
        if number in state:
            state[number] = own_state(state[number], table, f"parameter {number}")
    return {**state_dict, "state": state}


def _numbered_tables(optimizer: Optimizer, state_dict: dict[str, Any]) -> list[tuple[Any, TableShard]]:
    """Return the tables of an optimizer, each with what its weight is called in a state_dict: a number or a name."""
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    tables = [(number, table_of(parameter)) for number, parameter in zip(numbers, parameters, strict=False)]
    return [(number, table) for number, table in tables if table is not None]


@cache
def _check_first_steps() -> None:
    register_optimizer_step_pre_hook(_before_step)


def _before_step(optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
    """Before an optimizer's first step, take its own rows of what it may have loaded, and give it hooks.

    So too before the first step with a further group of parameters.
    """
    groups, seen = optimizer.param_groups, _checked.get(optimizer, 0)
    if seen == len(groups):
        return
    first = sum(len(group["params"]) for group in groups[:seen])
    parameters = list(enumerate(parameter for group in groups for parameter in group["params"]))[first:]
    tables = [(number, table) for number, p in parameters if (table := table_of(p)) is not None]
    for number, table in tables:
        if table.weight in optimizer.state:
            optimizer.state[table.weight] = own_state(optimizer.state[table.weight], table, f"parameter {number}")
    if tables and optimizer not in _hooked and not getattr(optimizer, "saves_distributed_rows", False):
        _hooked.add(optimizer)
        optimizer.register_state_dict_post_hook(saved_state)
        optimizer.register_load_state_dict_pre_hook(own_state_dict)
    _checked[optimizer] = len(groups)
