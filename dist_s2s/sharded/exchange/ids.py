"""Checks of ids before anything is asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard, called

_INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_all_ids(
    ids: Sequence[object], sizes: Sequence[int], rank: int, tables: Sequence[TableShard]
) -> Exception | None:
    """Return the error for the first table with invalid ids, or None; ``sizes`` are the tables' rows."""
    for mine, num_rows, table in zip(ids, sizes, tables, strict=True):
        problem = _device_error(mine, table, rank) or check_ids(mine, num_rows, rank)
        if problem is not None:
            return in_table(problem, table) if len(tables) > 1 or table.name else problem
    return None


def _device_error(ids: object, table: TableShard, rank: int) -> Exception | None:
    """Return the error for ids that a table on the CPU cannot read where they are, or None."""
    if isinstance(ids, Tensor) and table.group.device.type == "cpu" and ids.device.type != "cpu":
        return ValueError(f"ids on rank {rank} are on {ids.device}, but the table is on the CPU; move them with .cpu()")
    return None


def in_table(problem: Exception, table: TableShard) -> Exception:
    """Return the same error with a text that also says in which table it is."""
    return type(problem)(f"{called(table)}): {problem}")


def check_ids(ids: object, num_rows: int, rank: int) -> Exception | None:
    """Return a TypeError if ``ids`` is no tensor of integers, an IndexError if one is out of range, or None."""
    if not isinstance(ids, Tensor):
        return TypeError(f"ids on rank {rank} must be a tensor of integers, but are a {type(ids).__name__}")
    if ids.dtype not in _INTEGER_TYPES:
        return TypeError(
            f"ids on rank {rank} must be integers, but their dtype is {ids.dtype}; convert them with .long()"
        )
    if ids.numel() == 0:
        return None
    lowest, highest = torch.stack(ids.aminmax()).tolist()
    if lowest >= 0 and highest < num_rows:
        return None
    ids = ids.long()  # num_rows may be beyond a narrower type
    position = tuple(((ids < 0) | (ids >= num_rows)).nonzero()[0].tolist())
    return IndexError(f"id {int(ids[position])} at position {position} on rank {rank} is outside [0, {num_rows})")
