"""What an exchange needs to know of a table, so that it need not know the table."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject


class TableShard(Protocol):
    """One rank's part of a table.

    Attributes:
        weight: the local rows, [shard rows, embedding_dim].
        partition: which rank owns which row.
        group: the ranks that share the table.
        number: counts the tables of these ranks; the same on each of them.
        copies: 0, or how many copyings ago it was built: a copy has the number of its original.
        name: what the table is called in its model, for errors; None if nobody knows.
        owns_weight: whether ``weight`` is the table's own, not a tensor that functional_call has put in its place.
        is_in_place: whether all ranks see all rows where they are, as far as they have agreed.
        grad_divisor: what a sum of gradients over all ranks is divided by.
        padding_row: the local row that gets no gradient; None if it is another rank's, or there is none.
    """

    weight: nn.Parameter
    partition: RowPartition
    group: RankGroup
    number: int
    copies: int
    name: str | None
    embedding_dim: int
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool
    comm_dtype: torch.dtype | None
    deduplicate: bool

    @property
    def owns_weight(self) -> bool: ...  # noqa: D102

    @property
    def is_in_place(self) -> bool: ...  # noqa: D102

    def all_rows(self) -> Tensor:
        """Return all rows by position, [num_embeddings, embedding_dim], where they are."""

    def has_moved(self) -> bool:
        """Tell whether the shard has left the memory in which all ranks see it; they may not know yet."""

    def share_again(self) -> None:
        """Put the shard into memory that all ranks see again, if they can have it (collective)."""

    @property
    def grad_divisor(self) -> float: ...  # noqa: D102

    @property
    def padding_row(self) -> int | None: ...  # noqa: D102


def subject_of(kind: str, tables: Sequence[TableShard], number: int | None = None) -> Subject:
    """Return the subject of an exchange: its kind, the number of its lookup if any, and its tables in their order."""
    described = ", ".join(f"{name_of(table)}, {table.weight.dtype})" for table in tables)
    return Subject(f"{kind} of {described}" if number is None else f"{kind} {number} of {described}")


def called(table: TableShard) -> str:
    """Return what an error calls a table: as in the model, if that is known; otherwise as ``name_of``."""
    if table.name is None:
        return name_of(table)
    return f'table "{table.name}" ({table.partition.num_rows} x {table.embedding_dim}'


def name_of(table: TableShard) -> str:
    """Return what ranks call a table among each other, with its size, up to a parenthesis that the caller closes."""
    original = f"table {table.number} ({table.partition.num_rows} x {table.embedding_dim}"
    return "a copy of " * table.copies + original


def wire_dtype(tables: Sequence[TableShard]) -> torch.dtype | None:
    """Return the comm_dtype that any of the tables has; the rows of the others are of that dtype already."""
    return next((table.comm_dtype for table in tables if table.comm_dtype is not None), None)


def sum_dtype(table: TableShard) -> torch.dtype:
    """Return the dtype in which gradients are summed: the table's, but at least float32."""
    return torch.promote_types(table.weight.dtype, torch.float32)
