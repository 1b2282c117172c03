"""Where the rows of a shard are: in ordinary memory, or in memory that all ranks of a host see."""

from typing import Self

import torch
from torch import Tensor

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject
from dist_s2s.sharded.transport.shared_memory.rows import SharedRows, share_rows

_SHARING_AGAIN = Subject("the sharing again of a table's memory")


class RowStore:
    """The memory of one table's rows.

    Attributes:
        shard: the local rows, [shard rows, D], not initialised.
        is_in_place: whether this rank sees all rows where they are, or will once they have left the meta device; the
            same on all ranks.
    """

    def __init__(self, group: RankGroup, shard: Tensor, shared: SharedRows | None = None) -> None:
        self._group, self._shared = group, shared
        self.shard = shard
        self._is_to_be_shared = shard.is_meta and group.transport.name == "shared_memory"
        self.is_in_place = shared is not None or group.size == 1 or self._is_to_be_shared
        group.stores.add(self)

    @classmethod
    def make(
        cls, group: RankGroup, partition: RowPartition, width: int, device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Return memory for a table, shared if the ranks of ``group`` share any (collective); none on meta."""
        if device.type == "meta":
            return cls(group, torch.empty(partition.shard_size(group.rank), width, device=device, dtype=dtype))
        shared = share_rows(group.transport, partition, width, dtype)
        if shared is not None:
            return cls(group, shared.shard, shared)
        return cls(group, torch.empty(partition.shard_size(group.rank), width, device=device, dtype=dtype))

    def all_rows(self, weight: Tensor) -> Tensor:
        """Return all rows by position, [num_rows, D], of a table whose shard is ``weight``; only if ``is_in_place``."""
        return weight.detach() if self._shared is None else self._shared.whole

    def has_moved(self, weight: Tensor) -> bool:
        """Tell whether ``weight`` has left this memory, by conversion, a copy or an assignment (local)."""
        return self._is_to_be_shared or (self._shared is not None and not self._shared.holds(weight))

    def follow(self, weight: Tensor, partition: RowPartition) -> "RowStore":
        """Return the memory of a table whose shard is ``weight`` now, on all ranks alike (collective).

        If it has left this memory on a rank, that is new shared memory, with nothing in it yet; or ordinary memory,
        with ``weight`` itself in it, if ``weight`` is another table's shard or is not on the CPU.
        """
        device = weight.device
        borrowed = device.type != "cpu" or any(
            other is not self and isinstance(other, RowStore) and other.shard.data_ptr() == weight.data_ptr() != 0
            for other in self._group.stores
        )
        numbers = self._group.agree(_SHARING_AGAIN, None, [self.has_moved(weight), borrowed])
        if not any(moved for moved, _ in numbers):
            return self
        if any(moved and elsewhere for moved, elsewhere in numbers):
            return RowStore(self._group, weight.detach())
        return RowStore.make(self._group, partition, weight.shape[1], device, weight.dtype)
