"""Which rank owns which row: pure arithmetic, no communication."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self, get_args

import torch
from torch import Tensor

Layout = Literal["contiguous", "round_robin"]


@dataclass(frozen=True)
class RowPartition:
    """Divides the rows 0 … num_rows - 1 of a table among num_shards owners.

    Shard sizes differ by at most one row; the first ``num_rows % num_shards`` owners hold the extra one. With fewer
    rows than shards, the last owners hold none.

    A row's *position* is its place in the concatenation of all shards, ordered by owner. In a contiguous layout, a
    row's position is its id.

    Attributes:
        num_rows: number of rows of the whole table.
        num_shards: number of owners.
        layout: "contiguous" gives each owner one run of ids; "round_robin" gives row i to owner ``i % num_shards``,
            which spreads the frequent ids of a frequency-sorted vocabulary evenly.
    """

    num_rows: int
    num_shards: int
    layout: Layout = "contiguous"

    def __post_init__(self) -> None:
        if self.num_rows < 0:
            raise ValueError(f"num_rows must not be negative, but is {self.num_rows}")
        if self.num_shards < 1:
            raise ValueError(f"num_shards must be at least 1, but is {self.num_shards}")
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, but is {self.layout!r}")

    @property
    def numbers(self) -> tuple[int, int, int]:
        """What a file says of a partition: num_rows, num_shards, and the place of the layout among all."""
        return self.num_rows, self.num_shards, get_args(Layout).index(self.layout)

    @classmethod
    def of_numbers(cls, num_rows: int, num_shards: int, layout: int) -> Self:
        """Return the partition that has these ``numbers``."""
        return cls(num_rows, num_shards, get_args(Layout)[layout])

    def shard_size(self, owner: int) -> int:
        """Return the number of rows that ``owner`` holds."""
        return self.offset(owner + 1) - self.offset(owner)

    def offset(self, owner: int) -> int:
        """Return the position of the first row of ``owner``; ``offset(num_shards)`` is num_rows."""
        rows, extra = divmod(self.num_rows, self.num_shards)
        return owner * rows + min(owner, extra)

    @property
    def position_dtype(self) -> torch.dtype:
        """The smaller integer dtype that holds every position: int32, or int64 for more than 2³¹ rows."""
        return torch.int32 if self.num_rows <= 1 << 31 else torch.int64

    @cached_property
    def offsets(self) -> Tensor:
        """The offsets of all owners, int64 [num_shards] on the CPU."""
        return torch.tensor([self.offset(owner) for owner in range(self.num_shards)])

    def owner_and_row(self, row_id: int) -> tuple[int, int]:
        """Return the owner of a row, and the row's number within the owner's shard; IndexError if there is no row."""
        if not 0 <= row_id < self.num_rows:
            raise IndexError(f"row {row_id} is outside [0, {self.num_rows})")
        if self.layout == "round_robin":
            return row_id % self.num_shards, row_id // self.num_shards
        rows, extra = divmod(self.num_rows, self.num_shards)
        in_larger_shards = extra * (rows + 1)
        if row_id < in_larger_shards:
            return row_id // (rows + 1), row_id % (rows + 1)
        owner = extra + (row_id - in_larger_shards) // rows
        return owner, row_id - self.offset(owner)

    def positions(self, ids: Tensor) -> Tensor:
        """Return the positions of ``ids``, int64 of any shape, each within [0, num_rows)."""
        if self.layout == "contiguous" or self.num_shards == 1:
            return ids
        rows = ids.div(self.num_shards, rounding_mode="floor")
        owners = torch.sub(ids, rows, alpha=self.num_shards)
        return self.offsets.to(ids.device).take(owners).add_(rows)  # a scalar index would give a view

    def ids(self, owner: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the ids of rows start … stop - 1 of ``owner``'s shard, int64 [stop - start], in ascending order."""
        return self.ids_of_rows(owner, torch.arange(start, self.shard_size(owner) if stop is None else stop))

    def ids_at(self, positions: Tensor) -> Tensor:
        """Return the ids of the rows at ``positions``, int64 of any shape: the inverse of ``positions``."""
        if self.layout == "contiguous":
            return positions
        owners = torch.searchsorted(self.offsets, positions, right=True) - 1
        return (positions - self.offsets[owners]) * self.num_shards + owners

    def ids_of_rows(self, owner: int, rows: Tensor) -> Tensor:
        """Return the ids of rows of ``owner``'s shard, int64 of any shape."""
        return rows * self.num_shards + owner if self.layout == "round_robin" else rows + self.offset(owner)

    def rows_below(self, owner: int, bound: int) -> int:
        """Return how many of ``owner``'s rows have an id below ``bound``; they are the first of its shard."""
        if self.layout == "round_robin":
            below = (bound - owner + self.num_shards - 1) // self.num_shards
        else:
            below = bound - self.offset(owner)
        return min(max(below, 0), self.shard_size(owner))
