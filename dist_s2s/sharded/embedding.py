"""DistributedEmbedding: nn.Embedding with its rows divided among the ranks of a process group."""

import copy
from typing import Any, Self, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from dist_s2s.sharded.agreement import check_same_on_all_ranks, gather_texts
from dist_s2s.sharded.choose_transport import choose_transport
from dist_s2s.sharded.dynamic_rows import grow, reset_rows
from dist_s2s.sharded.initialize import normal_rows
from dist_s2s.sharded.lookup import lookup, make_plan
from dist_s2s.sharded.partition import Layout, RowPartition
from dist_s2s.sharded.plan import ExchangePlan
from dist_s2s.sharded.resharding import gather_whole, scatter_from_first
from dist_s2s.sharded.table_settings import GradReduction, check_settings, checked_padding_idx, groups_of
from dist_s2s.sharded.transport import ExchangeStatistics, Transport, TransportName, rank_and_size

_INITIALIZE_ELEMENTS = 1 << 18  # about 1 MiB of float32 at a time: its temporaries stay in the cache


class DistributedEmbedding(nn.Module):
    """A lookup table of which each rank holds num_embeddings / world_size rows.

    Used like ``nn.Embedding``: ids of any integer shape in, rows of shape ``ids.shape + (embedding_dim,)`` out, each
    rank with a batch of its own. Building it, looking up, and running backward through a lookup are collective: every
    rank of the group takes part, each time, also with no ids at all. See exchange.py for the protocol.

    ``weight`` is the local shard, [shard rows, embedding_dim]; its ``grad`` is a coalesced sparse tensor that holds
    just the rows which some rank looked up, so torch.optim.SGD, Adagrad and SparseAdam work on it unchanged.

    num_embeddings, embedding_dim: size of the whole table, the same on every rank.
    padding_idx: id of a row that starts as zeros and never receives a gradient.
    max_norm, norm_type: rows of a larger norm are scaled down to max_norm, in place, when they are looked up. Not with
        replicas, which would differ.
    scale_grad_by_freq: divides a row's gradient by how often its id occurs in the batches of all ranks.
    layout: "contiguous" or "round_robin", see RowPartition.
    grad_reduction: "mean" divides the summed gradients by the number of ranks, as DistributedDataParallel does for the
        rest of the model; "sum" leaves them as they are.
    comm_dtype: torch.bfloat16 or torch.float16 if rows and gradients are to travel in it; they are summed in float32.
    transport: "shared_memory" between CPU ranks of one host, "collective" for torch.distributed's collectives, or
        "auto": shared memory where the ranks can prove that they share it. Results are the same, bit by bit.
    deduplicate: an id that occurs more than once in a rank's batch is asked for once. Without, nothing has to be
        sorted but by owner, which pays where hardly any id occurs twice.
    init_std: standard deviation of the initial rows, which are normal; nn.Embedding's is 1.
    process_group: the ranks that share the table. By default a new group of all ranks, because collectives of a table
        and of DistributedDataParallel may start in another order on another rank, and so must not share a group.
        Without an initialised process group the table is local.
    device_mesh: instead of process_group a mesh of two dimensions, replicas and shards, as PyTorch's hybrid FSDP uses:
        the table is sharded over the ranks of a row and replicated down the columns. Lookups stay within a row; in
        backward the ranks of a column sum their sparse gradients, in the same order, so that replicas stay equal.
    seed: seed of the initial rows, which are the same at every world size. By default rank 0 draws it from torch's
        generator, so that torch.manual_seed decides it.

    Raises ValueError on every rank if the ranks do not agree on one of these.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        *,
        layout: Layout = "contiguous",
        grad_reduction: GradReduction = "mean",
        comm_dtype: torch.dtype | None = None,
        transport: TransportName = "auto",
        deduplicate: bool = True,
        init_std: float = 1.0,
        process_group: dist.ProcessGroup | None = None,
        device_mesh: DeviceMesh | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dtype = torch.get_default_dtype() if dtype is None else dtype
        settings = {
            "num_embeddings": num_embeddings,
            "embedding_dim": embedding_dim,
            "padding_idx": padding_idx,
            "max_norm": max_norm,
            "norm_type": norm_type,
            "scale_grad_by_freq": scale_grad_by_freq,
            "layout": layout,
            "grad_reduction": grad_reduction,
            "comm_dtype": comm_dtype,
            "transport": transport,
            "deduplicate": deduplicate,
            "init_std": init_std,
            "dtype": dtype,
        }
        self.process_group, self.replicate_group = groups_of(process_group, device_mesh)
        self.rank, self.world_size = rank_and_size(self.process_group)
        self.num_replicas = rank_and_size(self.replicate_group)[1]
        # Compared before they are checked, so that what is wrong on one rank is an error on all.
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        for group in (self.process_group, self.replicate_group):
            if group is not None:
                check_same_on_all_ranks(settings, group, device)
                seed = int(gather_texts(str(seed), group, device)[0])
        check_settings(num_embeddings, embedding_dim, grad_reduction, max_norm, init_std, comm_dtype, dtype)
        if max_norm is not None and self.replicate_group is not None:
            raise ValueError("max_norm changes rows in a lookup, which other replicas do not see; leave out one")

        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = checked_padding_idx(padding_idx, num_embeddings)
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.grad_reduction, self.comm_dtype, self.deduplicate = grad_reduction, comm_dtype, deduplicate
        self.init_std, self.seed = init_std, seed
        self.partition = RowPartition(num_embeddings, self.world_size, layout)
        self.statistics = ExchangeStatistics()
        self.plans_made = 0
        device = torch.empty(0, device=device).device
        self.transport: Transport = choose_transport(transport, self.process_group, device)
        self.shared_rows = self.transport.share_rows(self.partition, embedding_dim, dtype)
        self.weight = nn.Parameter(
            torch.empty(self.partition.shard_size(self.rank), embedding_dim, device=device, dtype=dtype)
            if self.shared_rows is None
            else self.shared_rows.shard
        )
        # A second backward before the optimizer's step adds to the gradient; torch would only append the rows.
        self.weight.register_post_accumulate_grad_hook(_coalesce_gradient)
        self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **settings: Any) -> Self:
        """A table with the rows of rank 0's ``embeddings``, [num_embeddings, embedding_dim] (collective).

        On the other ranks only its shape and dtype count: a tensor on the meta device will do. Rows travel in pieces of
        16 MiB. freeze: the table is not trained. settings: as of the constructor.
        """
        if embeddings.dim() != 2:
            raise ValueError(f"embeddings must have 2 dimensions, but have {embeddings.dim()}")
        device = None if embeddings.is_meta else embeddings.device
        table = cls(*embeddings.shape, **{"dtype": embeddings.dtype, "device": device, **settings})
        scatter_from_first(
            embeddings, table.weight.detach(), table.partition, table.process_group, table.replicate_group
        )
        table.weight.requires_grad_(not freeze)
        return table

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, **settings: Any) -> Self:
        """The sharded form of rank 0's ``embedding``, its padding_idx, max_norm and so on included (collective)."""
        own = {
            name: getattr(embedding, name) for name in ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")
        }
        weight = embedding.weight
        return cls.from_pretrained(weight.detach(), not weight.requires_grad, **{**own, **settings})

    def to_embedding(self, dst: int | None = None) -> nn.Embedding | None:
        """The whole table as an nn.Embedding, on rank ``dst`` or on every rank; None elsewhere (collective).

        Rows travel in pieces of 16 MiB.
        """
        if dst is not None and not 0 <= dst < self.world_size:
            raise ValueError(
                f"dst must be a rank of the table's process group, within [0, {self.world_size}), but is {dst}"
            )
        whole = gather_whole(self.weight.detach(), self.partition, self.process_group, dst)
        if whole is None:
            return None
        embedding = nn.Embedding(
            self.num_embeddings,
            self.embedding_dim,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            sparse=not self.scale_grad_by_freq,  # with which torch has no sparse gradients
            _weight=whole,
        )
        return embedding.requires_grad_(self.weight.requires_grad)

    @property
    def grad_divisor(self) -> float:
        """What a sum of gradients over all ranks is divided by."""
        return self.world_size * self.num_replicas if self.grad_reduction == "mean" else 1

    @property
    def padding_row(self) -> int | None:
        """The row of padding_idx within the local shard; None if there is none, or it is another rank's."""
        if self.padding_idx is None:
            return None
        owner, row = self.partition.owner_and_row(self.padding_idx)
        return row if owner == self.rank else None

    @torch.no_grad()
    def reset_parameters(self, first_row: int = 0) -> None:
        """Sets the local rows from ``first_row`` on to their initial values, in blocks that fit the cache (local)."""
        block = max(1, _INITIALIZE_ELEMENTS // self.embedding_dim)
        for start in range(first_row, len(self.weight), block):
            self.initialize_rows(torch.arange(start, min(start + block, len(self.weight))))

    @torch.no_grad()
    def initialize_rows(self, rows: Tensor) -> None:
        """Sets local rows, int64 [N], to their initial values (local)."""
        rows = rows.to(self.weight.device)
        values = normal_rows(self.partition.ids_of_rows(self.rank, rows), self.embedding_dim, self.seed)
        values.mul_(self.init_std)
        if self.padding_row is not None:
            values[rows == self.padding_row] = 0
        self.weight[rows] = values.to(self.weight.dtype)

    def plan(self, ids: Tensor) -> ExchangePlan:
        """Exchanges the ids but not yet the rows (collective). The plan serves any number of lookups of the same ids.

        Raises the same IndexError or TypeError on every rank if any rank's ids are out of range or not integers.
        """
        return make_plan([self], [ids])

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, ids: Tensor, plan: ExchangePlan | None = None) -> Tensor:
        """Rows of ``ids``, [*ids.shape, embedding_dim] (collective, and so is its backward).

        plan: the result of ``self.plan(ids)`` for these very ids, if that was called before: on every rank or on none.
        Raises as ``plan`` does, and ValueError on every rank if one rank's plan is of other ids or another table.
        """
        return lookup([self], [ids], plan)[0]

    def grow(self, num_embeddings: int, optimizer: Optimizer | None = None) -> None:
        """Makes room for more ids (collective). New rows are those that a table of this size would have begun with.

        optimizer: its state of ``weight`` moves along, if it has a row for each row; that of new rows is 0. Gradients
        are dropped. Raises ValueError for a smaller size.
        """
        grow(self, num_embeddings, optimizer)

    def reset_rows(self, ids: Tensor, optimizer: Optimizer | None = None) -> None:
        """Gives rows their initial values again, and 0 to the optimizer's state of them (collective).

        ids: integers of any shape, of rows on any rank; each rank may name others, or none. Raises as ``plan`` does.
        """
        reset_rows(self, ids, optimizer)

    def extra_repr(self) -> str:
        """What print(module) shows between the parentheses."""
        options = {
            "padding_idx": None,
            "max_norm": None,
            "norm_type": 2.0,
            "scale_grad_by_freq": False,
            "comm_dtype": None,
            "deduplicate": True,
        }
        set_options = [
            f", {name}={getattr(self, name)}" for name, usual in options.items() if getattr(self, name) != usual
        ]
        return (
            f"{self.num_embeddings}, {self.embedding_dim}{''.join(set_options)}, layout={self.partition.layout}, "
            f"transport={self.transport.name}, "
            f"rank {self.rank} of {self.world_size} holds {len(self.weight)} rows"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of the rows and settings on the same process groups (not collective)."""
        # The next lookup finds that the copy's rows are not the shared ones, and tells the ranks that have not copied.
        shared = (self.process_group, self.replicate_group, self.transport, self.shared_rows)
        clone = type(self).__new__(type(self))
        memo.update({id(self): clone, **{id(each): each for each in shared if each is not None}})
        clone.__dict__ = {name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()}
        clone.weight.register_post_accumulate_grad_hook(_coalesce_gradient)
        return clone

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "shard"] = self._shard_description()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Takes a shard, if it is the same part of the same table, or this rank's rows of a whole nn.Embedding."""
        error_messages = arguments[-1]
        state_dict = dict(state_dict)
        weight, saved = state_dict.get(prefix + "weight"), state_dict.pop(prefix + "shard", None)
        own = self._shard_description()
        if saved is None and weight is not None and weight.shape == (self.num_embeddings, self.embedding_dim):
            state_dict[prefix + "weight"] = weight[self.partition.ids(self.rank)]
        elif saved is not None and not torch.equal(saved.cpu(), own):
            error_messages.append(
                f"{prefix}weight: the state_dict holds (num_embeddings, world_size, rank, layout) = {saved.tolist()}, "
                f"but this table is {own.tolist()}; load a whole table, as to_embedding gives it, or this rank's shard"
            )
            return
        old = self.weight
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if self.weight is not old:  # assign=True
            self.weight.register_post_accumulate_grad_hook(_coalesce_gradient)

    def _shard_description(self) -> Tensor:
        """What state_dict holds as "shard": int64 [num_embeddings, world_size, rank, number of the layout]."""
        layout = get_args(Layout).index(self.partition.layout)
        return torch.tensor([self.num_embeddings, self.world_size, self.rank, layout])


def _coalesce_gradient(parameter: Tensor) -> None:
    """Merges what two backwards have appended; after a single one it just restores the mark that torch drops."""
    gradient = parameter.grad
    if gradient is None or not gradient.is_sparse or gradient.is_coalesced():
        return
    indices, values = gradient._indices(), gradient._values()
    if bool((indices[0, 1:] > indices[0, :-1]).all()):
        gradient = torch.sparse_coo_tensor(indices, values, gradient.shape, is_coalesced=True, check_invariants=False)
    parameter.grad = gradient.coalesce()
