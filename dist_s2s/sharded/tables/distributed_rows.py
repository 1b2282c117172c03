"""What state_dict holds for a sharded table, and for an optimizer's state of it: all rows, of which a rank has some.

Other programs take a value of a state_dict for the whole of something. DistributedRows has the shape of the whole, and
tells torch.distributed.checkpoint (DCP) which part of it is here, by the protocol that DTensor has: so DCP saves each
rank's rows, and loads them on any number of ranks. DTensor itself cannot express how rows are divided. Whatever would
take one rank's rows for the whole raises an error that says what to do instead.

Rows of a contiguous layout are saved by id: [num_rows, ...]. Those of a round-robin layout are saved by position, which
depends on the number of ranks: [1, num_rows, ...], with a dimension more, so that nobody takes them for rows by id.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.resharding import gather_whole
from dist_s2s.sharded.transport.group import RankGroup

# What works on each row by itself, so that every rank can do it to its own.
_BY_ROW = {
    getattr(torch.ops.aten, name)
    for names in (
        "detach alias clone _to_copy copy_ fill_ zero_ empty_like zeros_like ones_like full_like",
        "neg neg_ add add_ sub sub_ mul mul_ div div_ lerp lerp_",
    )
    for name in names.split()
}


@dataclass(frozen=True)
class Shard:
    """Which rows of which whole a rank has.

    Attributes:
        partition: how the rows are divided.
        group: the ranks that they are divided among.
        name: what an error calls the whole, as "encoder.embedding.weight".
        may_be_pickled: whether a file may have this rank's rows alone; they then say whose they are.
    """

    partition: RowPartition
    group: RankGroup
    name: str
    may_be_pickled: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the shard itself: copies of rows belong to the same ranks."""
        return self

    def has_same_rows(self, other: "Shard") -> bool:
        """Tell whether the rows have the same numbers, whatever they are rows of."""
        return (self.partition, self.group.rank) == (other.partition, other.group.rank)

    @property
    def size(self) -> int:
        """The number of this rank's rows."""
        return self.partition.shard_size(self.group.rank)

    @property
    def lead(self) -> tuple[int, ...]:
        """The dimensions before that of rows in the shape that is saved."""
        return () if self.partition.layout == "contiguous" else (1,)


class DistributedRows(Tensor):
    """All rows of a sharded tensor, of which this rank has some (see the module).

    Copies, moves to a device or dtype, and sums and differences of two of a kind, with numbers as factors, are
    DistributedRows again.

    Attributes:
        shard: which rows this rank has.
    """

    shard: Shard
    _local: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, local: Tensor, shard: Shard) -> "DistributedRows":
        """Wrap this rank's rows, [shard rows, ...], whose memory stays shared."""
        shape = (*shard.lead, shard.partition.num_rows, *local.shape[1:])
        rows: DistributedRows = Tensor._make_wrapper_subclass(cls, shape, dtype=local.dtype, device=local.device)
        rows._local, rows.shard = local, shard
        return rows

    def to_local(self) -> Tensor:
        """Return this rank's rows, [shard rows, ...], which share their memory with the table (local)."""
        return self._local

    def full_tensor(self) -> Tensor:
        """Return all rows by id, [num_rows, ...], on every rank (collective)."""
        whole = gather_whole(self._local, self.shard.partition, self.shard.group)
        assert whole is not None
        return whole

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Return the name, the shape and how many rows are here, not the rows."""
        return (
            f"DistributedRows({self.shard.name}, {list(self.shape)}, {self.dtype}, rank {self.shard.group.rank} of "
            f"{self.shard.group.size} holds {len(self._local)} rows)"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "DistributedRows":
        """Return a copy of this rank's rows (local)."""
        memo[id(self)] = copied = DistributedRows(self._local.clone(), self.shard)
        return copied

    # Saving one rank's rows as if they were all is refused: torch.save pickles, and safetensors reads the memory.

    def __reduce_ex__(self, protocol: object) -> Any:
        """Refuse to be pickled, but for the state of optimizers, of which each rank may have a file of its own.

        In that stands an OrderedDict, which torch.load reads with weights_only, of the rows and whose they are.
        """
        if not self.shard.may_be_pickled:
            raise self._refusal("to pickle it, as torch.save does,")
        return OrderedDict, (
            [("rows", self._local), ("owner", (*self.shard.partition.numbers, self.shard.group.rank))],
        )

    def untyped_storage(self) -> Any:
        """Refuse to show the memory, in which there are only this rank's rows."""
        raise self._refusal("to take its memory for the whole, as safetensors does,")

    storage = untyped_storage  # which some programs try next

    def _refusal(self, what: str) -> TypeError:
        shard = self.shard
        return TypeError(
            f"{shard.name} is sharded: rank {shard.group.rank} holds {len(self._local)} of its "
            f"{shard.partition.num_rows} rows, and {what} would lose the others; save with torch.distributed.checkpoint"
            " (dcp.save), or whole with dist_s2s.sharded.gather_state, on all ranks; this rank's rows alone are "
            "to_local(), or the table's weight"
        )

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what works on each row by itself to this rank's rows; refuse all else."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        rows = next(tensor for tensor in tensors if isinstance(tensor, DistributedRows))
        if func is torch.ops.aten.new_empty.default and tuple(args[1]) == rows.shape:  # which dcp.async_save fills
            return DistributedRows(func(rows._local, rows._local.shape, **kwargs), rows.shard)
        if func.overloadpacket not in _BY_ROW or not all(_is_alike(rows, tensor) for tensor in tensors):
            raise RuntimeError(  # of a TypeError, torch's operators would lose the text
                f"{rows.shard.name} is sharded over {rows.shard.group.size} ranks, and {func} would need rows of other "
                "ranks; take to_local() for this rank's rows, or full_tensor(), on all ranks, for all of them"
            )
        result = func(*_unwrapped(args), **_unwrapped(kwargs))
        return rows if result is rows._local else DistributedRows(result, rows.shard)  # itself if it was in place

    # The protocol of torch.distributed.checkpoint for what is divided among ranks. DTensor implements it as well.

    def __create_write_items__(self, name: str, rows: Tensor) -> list[Any]:
        """Return what DCP is to write on this rank: its rows, if it has any."""
        from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        properties = TensorProperties.create_from_tensor(self._local)
        return [
            WriteItem(
                index=MetadataIndex(name, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=self.size()),
            )
            for chunk in self._chunks()
        ]

    def __create_chunk_list__(self) -> list[Any]:
        """Return which part of the whole DCP is to load on this rank."""
        if self.shard.partition.layout != "contiguous":
            # What is read may be ordered for another number of ranks. load_state_dict puts each row where it belongs;
            # until then the table's memory stays as it is.
            self._local = self._local.clone()
        return self._chunks()

    def __get_tensor_shard__(self, index: Any) -> Tensor:
        """Return the memory of this rank's part, which DCP writes out or reads into."""
        return self._local.view(*self.shard.lead, *self._local.shape)

    def _chunks(self) -> list[Any]:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

        if not len(self._local):
            return []
        first = self.shard.partition.offset(self.shard.group.rank)
        offsets = (*(0 for _ in self.shard.lead), first, *(0 for _ in self._local.shape[1:]))
        return [ChunkStorageMetadata(torch.Size(offsets), torch.Size((*self.shard.lead, *self._local.shape)))]


def _is_alike(rows: DistributedRows, other: Tensor) -> bool:
    """Tell whether a rank can combine its rows with its part of ``other``: rows of the same numbers, or a number."""
    if isinstance(other, DistributedRows):
        return other.shard.has_same_rows(rows.shard) and other.shape == rows.shape
    return other.dim() == 0


def _unwrapped(arguments: Any) -> Any:
    return tree_map_only(DistributedRows, lambda rows: rows._local, arguments)
