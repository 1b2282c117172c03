"""One rank's rows of a table as a module: what an exchange sees of them, and what other programs do to them."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables import state
from dist_s2s.sharded.tables.guarded_weight import is_guarded
from dist_s2s.sharded.tables.saved_rows import as_saved
from dist_s2s.sharded.tables.settings import GradReduction
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.tables.weight import adopt, check_weight, forget_hooks
from dist_s2s.sharded.tables.wrappers import is_sharded
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.making import find_local_group


class ShardModule(nn.Module):
    """A TableShard, whose weight may be moved, replaced, copied, pickled, saved and loaded as any parameter.

    DistributedEmbedding sets the attributes, and says what they are.
    """

    weight: nn.Parameter
    partition: RowPartition
    group: RankGroup
    number: int
    copies: int
    name: str | None = None
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool
    grad_reduction: GradReduction
    comm_dtype: torch.dtype | None
    deduplicate: bool
    _store: RowStore

    @property
    def rank(self) -> int:
        """This rank's number among those that share the table."""
        return self.group.rank

    @property
    def world_size(self) -> int:
        """The number of ranks that share the table."""
        return self.group.size

    @property
    def grad_divisor(self) -> float:
        """What a sum of gradients over all ranks is divided by."""
        return self.group.size * self.group.replicas.size if self.grad_reduction == "mean" else 1

    @property
    def padding_row(self) -> int | None:
        """The row of padding_idx within the local shard; None if there is none, or it is another rank's."""
        if self.padding_idx is None:
            return None
        owner, row = self.partition.owner_and_row(self.padding_idx)
        return row if owner == self.rank else None

    @property
    def owns_weight(self) -> bool:
        """Whether ``weight`` is the table's own, not a tensor that functional_call has put in its place."""
        return self.weight is self.__dict__.get("_owned", (None,))[0]

    @property
    def is_in_place(self) -> bool:
        """Whether all ranks read the table's rows where they are; see TableShard."""
        return self._store.is_in_place

    def all_rows(self) -> Tensor:
        """Return all rows by position, [num_embeddings, embedding_dim], if ``is_in_place``."""
        return self._store.all_rows(self.weight)

    def has_moved(self) -> bool:
        """Tell whether the shard has left the memory in which all ranks see it (local)."""
        return self._store.has_moved(self.weight)

    @torch.inference_mode(False)  # in which the weight would be made of memory that cannot be trained
    @torch.no_grad()
    def share_again(self) -> None:
        """Put the shard into memory that all ranks see again, if it has left that and they can have it (collective)."""
        self._keep_in(self._store.follow(self.weight, self.partition), self.weight.data)

    @torch.no_grad()
    def replace_rows(self, shard: Tensor, partition: RowPartition) -> None:
        """Take ``shard`` for the local rows of a table of another size, without a gradient (collective)."""
        store = RowStore.make(self.group, partition, self.embedding_dim, shard.device, shard.dtype)
        self.num_embeddings, self.partition = partition.num_rows, partition
        self.weight.grad = None
        # A graph that is still alive keeps the node that accumulates gradients of the old shape. Only with another
        # dtype does torch make a new one.
        self.weight.data = shard.new_empty(0, dtype=torch.float16)
        self._keep_in(store, shard)

    def _keep_in(self, store: RowStore, shard: Tensor) -> None:
        self._store = store
        if store.shard.data_ptr() != shard.data_ptr():
            store.shard.copy_(shard)
        self.weight.data = store.shard

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a new weight gets what every weight has, and must not be a DTensor."""
        if name == "weight":
            check_weight(value)
        super().__setattr__(name, value)
        if name == "weight":
            self._own_weight()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._own_weight()  # another one if it was on another kind of device before, such as meta
        self._follow_device()
        return self

    def _follow_device(self) -> None:
        """Let a table that no other rank shares have its rows where its weight is now (local)."""
        if self.group.is_alone and not self.weight.is_meta and self.weight.device.type != self.group.device.type:
            self._stand_alone()

    def _stand_alone(self) -> None:
        """Have the weight for all rows, which no other rank shares."""
        self.group = find_local_group(self.weight.device)
        self._store = RowStore(self.group, self.weight.detach())

    def _own_weight(self) -> None:
        if self.owns_weight and not is_guarded(self.weight):  # torch.__future__ lets _apply swap it
            forget_hooks(self.weight)
            adopt(self)
        elif not self.owns_weight:
            adopt(self)
            self._owned = (self.weight,)  # in a tuple, lest it be registered as a second parameter

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy of the rows and settings for the same ranks (not collective)."""
        clone = type(self).__new__(type(self))
        # The next lookup finds that the copy's rows are not in the store, and gives it one of its own on all ranks.
        memo.update({id(self): clone, id(self.group): self.group, id(self._store): copy.copy(self._store)})
        clone.__dict__ = {name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()}
        clone.copies += 1
        adopt(clone)  # a copied parameter has no hooks
        return clone

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled of a table that is whole; TypeError for one of which other ranks hold other rows."""
        if is_sharded(self):
            raise TypeError(
                f"rank {self.rank} of {self.world_size} holds only its own rows of this table, which can't be pickled; "
                "save with torch.distributed.checkpoint (dcp.save), or with dist_s2s.sharded.gather_state, on all ranks"
            )
        return {name: value for name, value in self.__dict__.items() if name not in ("group", "_store")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a whole table, for this process alone."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._stand_alone()
        adopt(self)  # likewise

    def get_extra_state(self) -> Tensor:
        """Return what state_dict holds as "_extra_state": num_embeddings, world_size and layout, int64 [3]."""
        return torch.tensor(self.partition.numbers, device="cpu")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        name = prefix + "weight"
        destination[name] = as_saved(destination[name], state.shard_of(self, name))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Take what state_dict of a table of this size and layout holds, or this rank's rows of an nn.Embedding's."""
        own_rows, problem = state.with_own_rows(state_dict, prefix, self)
        if problem is not None:
            arguments[-1].append(problem)
            return
        super()._load_from_state_dict(own_rows, prefix, *arguments)
