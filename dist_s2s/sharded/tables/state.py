"""What a table's state_dict holds, and how it is loaded."""

from typing import Any

from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard
from dist_s2s.sharded.tables.distributed_rows import Shard
from dist_s2s.sharded.tables.saved_rows import described, own_rows

EXTRA_STATE = "_extra_state"  # as torch names it


def shard_of(table: TableShard, name: str) -> Shard:
    """Return which rows of which whole a rank's part of the table is."""
    return Shard(table.partition, table.group, name)


def with_own_rows(state_dict: dict[str, Any], prefix: str, table: TableShard) -> tuple[dict[str, Any], str | None]:
    """Return a state_dict with only this rank's rows of a table, and what is wrong with the given one, or None.

    Collective where rows move; see ``own_rows``.

    Args:
        state_dict: holds a table's weight as state_dict() gives it, or all rows, as nn.Embedding's does.
        prefix: of the table's names in it.
        table: to load.
    """
    own, name = dict(state_dict), prefix + "weight"
    old = described(own.pop(prefix + EXTRA_STATE, None))
    if isinstance(own.get(name), Tensor):
        try:
            own[name] = own_rows(own[name], shard_of(table, name), old, table.embedding_dim)
        except ValueError as error:
            return own, str(error)
    return own, None
