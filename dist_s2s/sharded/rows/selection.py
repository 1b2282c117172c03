"""How rows become the outputs of a lookup, and how gradients of outputs become gradients of rows."""

from functools import cached_property

import torch
from torch import Tensor

from dist_s2s.sharded.rows.runs import Runs


class Selection:
    """One row for each id. ``reduce`` is the dual of ``expand``: its transpose as a linear map.

    Args:
        positions: int64 of any shape, the positions of the ids (see RowPartition). Let N be their number.
        deduplicate: name an id that occurs more than once only once. U is the number of rows named, distinct unless
            ``deduplicate`` is False, ordered by position and hence by owner.
    """

    def __init__(self, positions: Tensor, deduplicate: bool = True) -> None:
        self.shape = positions.shape
        self._positions, self._deduplicate = positions.reshape(-1), deduplicate

    @cached_property
    def runs(self) -> Runs:
        """The runs of the positions, which name the U rows."""
        return Runs.of(self._positions, self._deduplicate)

    def read(self, whole: Tensor) -> Tensor:
        """Return the outputs, [*shape, D], from all rows of the table, ordered by position: [num_rows, D]."""
        return whole.index_select(0, self._positions).view(*self.shape, whole.shape[1])

    def expand(self, rows: Tensor) -> Tensor:
        """Return the outputs, [*shape, D], from the U named rows, [U, D]."""
        return rows.index_select(0, self.runs.inverse).view(*self.shape, rows.shape[1])

    def reduce(self, gradients: Tensor) -> Tensor:
        """Return the gradients of the U named rows, [U, D], from those of the outputs, [*shape, D]."""
        return self.runs.sums(gradients.reshape(-1, gradients.shape[-1]).contiguous())

    def copy(self) -> "Selection":
        """Return a selection that does not change when somebody overwrites the positions."""
        return Selection(self._positions.view(self.shape).clone(), self._deduplicate)

    def to(self, device: torch.device) -> "Selection":
        """Return the same selection on another device."""
        moved = Selection(self._positions.view(self.shape).to(device), self._deduplicate)
        if "runs" in self.__dict__:
            moved.__dict__["runs"] = self.runs.to(device)
        return moved
