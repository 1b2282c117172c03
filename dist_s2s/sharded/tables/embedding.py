"""DistributedEmbedding: nn.Embedding with its rows divided among the ranks of a process group."""

from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from dist_s2s.sharded.eager import never_compiled
from dist_s2s.sharded.exchange.plan import ExchangePlan
from dist_s2s.sharded.exchange.shard import subject_of
from dist_s2s.sharded.rows.partition import Layout, RowPartition
from dist_s2s.sharded.tables import growing
from dist_s2s.sharded.tables.fingerprint import remember_equal
from dist_s2s.sharded.tables.initialize import normal_rows
from dist_s2s.sharded.tables.lookup import exported_lookup, lookup, make_plan
from dist_s2s.sharded.tables.resharding import gather_whole, scatter_whole
from dist_s2s.sharded.tables.settings import GradReduction, check_settings, checked_padding_idx
from dist_s2s.sharded.tables.shard_module import ShardModule
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.making import find_group
from dist_s2s.sharded.transport.protocol import ExchangeStatistics, Subject, Transport, TransportName

_INITIALIZE_ELEMENTS = 1 << 18  # about 1 MiB of float32 at a time: its temporaries stay in the cache
_BUILDING = Subject("the building of a table")


class DistributedEmbedding(ShardModule):
    """A lookup table of which each rank holds num_embeddings / world_size rows.

    Used like ``nn.Embedding``: ids of any integer shape in, rows of shape ``ids.shape + (embedding_dim,)`` out, each
    rank with a batch of its own. Building it, looking up, and running backward through a lookup are collective: every
    rank of the group takes part, each time, also with no ids at all. exchange/route.py describes the protocol.

    Args:
        num_embeddings, embedding_dim: size of the whole table, the same on every rank.
        padding_idx: id of a row that starts as zeros and never receives a gradient.
        max_norm, norm_type: scale rows of a larger norm down to max_norm, in place, when they are looked up. Not with
            replicas, which would differ.
        scale_grad_by_freq: divide a row's gradient by how often its id occurs in the batches of all ranks.
        layout: "contiguous" or "round_robin", see RowPartition.
        grad_reduction: "mean" divides the summed gradients by the number of ranks, as DistributedDataParallel does for
            the rest of the model; "sum" leaves them as they are.
        comm_dtype: torch.bfloat16 or torch.float16 if rows and gradients are to travel in it; they are summed in
            float32.
        transport: "shared_memory" between CPU ranks of one host, "collective" for torch.distributed's collectives, or
            "auto": shared memory where the ranks can prove that they share it. Results are the same, bit by bit.
        deduplicate: ask only once for an id that occurs more than once in a rank's batch. Without, nothing has to be
            sorted but by owner, which pays where hardly any id occurs twice.
        init_std: standard deviation of the initial rows, which are normal; nn.Embedding's is 1.
        process_group: the ranks that share the table. By default all ranks, in a process group of the library's own
            that tables share, because collectives of tables and of DistributedDataParallel may start in another order
            on another rank. Without an initialised process group the table is local.
        device_mesh: instead of process_group a mesh of two dimensions, replicas and shards, as PyTorch's hybrid FSDP
            uses: the table is sharded over the ranks of a row and replicated down the columns. Lookups stay within a
            row; in backward the ranks of a column sum their sparse gradients, in the same order, so that replicas stay
            equal.
        seed: seed of the initial rows, which are the same at every world size. By default rank 0 draws it from torch's
            generator, so that torch.manual_seed decides it.

    Attributes:
        weight: the local shard, [shard rows, embedding_dim]. Its ``grad`` is a coalesced sparse tensor that holds just
            the rows which some rank looked up, so torch.optim.SGD, Adagrad and SparseAdam work on it unchanged.
        partition: which rank owns which row.
        group: the ranks that share the table.

    Raises:
        ValueError: on every rank, for impossible settings, or if the ranks do not agree on one.
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
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.grad_reduction, self.comm_dtype, self.deduplicate = grad_reduction, comm_dtype, deduplicate
        self.init_std = init_std
        device = torch.empty(0, device=device).device
        # Compared before they are checked, so that what is wrong on one rank is an error on all.
        names = ("num_embeddings", "embedding_dim", "max_norm", "norm_type", "scale_grad_by_freq", "grad_reduction")
        settings = {name: getattr(self, name) for name in (*names, "comm_dtype", "deduplicate", "init_std")}
        settings |= {"padding_idx": padding_idx, "layout": layout, "transport": transport, "dtype": dtype}
        with torch.device("cpu"):  # not on meta, where that is the default
            self.group = find_group(transport, process_group, device_mesh, device)
            settings["the number of tables built before"] = self.group.tables
            seed = int(torch.randint(2**62, ())) if seed is None else seed
            self.group.check_same_everywhere(settings, _BUILDING)
            for group in (self.group, self.group.replicas):
                seed = group.agree(_BUILDING, None, [seed])[0][0]
        check_settings(num_embeddings, embedding_dim, grad_reduction, max_norm, init_std, comm_dtype, dtype)
        if max_norm is not None and self.group.replicas.size > 1:
            raise ValueError("max_norm changes rows in a lookup, which other replicas do not see; leave out one")
        self.padding_idx = checked_padding_idx(padding_idx, num_embeddings)
        self.seed = seed
        self.number, self.copies = self.group.tables, 0
        self.group.tables += 1
        self.partition = RowPartition(num_embeddings, self.group.size, layout)
        self._store = RowStore.make(self.group, self.partition, embedding_dim, device, dtype)
        self.weight = nn.Parameter(self._store.shard)
        self.reset_parameters()

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, **settings: Any) -> Self:
        """Return a table with the rows of rank 0's ``embeddings``, [num_embeddings, embedding_dim] (collective).

        Rows travel in pieces of 16 MiB.

        Args:
            embeddings: on the other ranks only its shape and dtype count: a tensor on the meta device will do.
            freeze: do not train the table; rank 0's counts.
            settings: as of the constructor.
        """
        if embeddings.dim() != 2:
            raise ValueError(f"embeddings must have 2 dimensions, but have {embeddings.dim()}")
        device = None if embeddings.is_meta else embeddings.device
        table = cls(*embeddings.shape, **{"dtype": embeddings.dtype, "device": device, **settings})
        scatter_whole(embeddings, table.weight.detach(), table.partition, table.group)
        remember_equal(table)
        for group in (table.group, table.group.replicas):
            freeze = bool(group.agree(_BUILDING, None, [int(freeze)])[0][0])
        table.weight.requires_grad_(not freeze)
        return table

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, **settings: Any) -> Self:
        """Return the sharded form of rank 0's ``embedding``, with its padding_idx, max_norm and so on (collective)."""
        own = {
            name: getattr(embedding, name) for name in ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")
        }
        weight = embedding.weight
        return cls.from_pretrained(weight.detach(), not weight.requires_grad, **{**own, **settings})

    def to_embedding(self, dst: int | None = None) -> nn.Embedding | None:
        """Return the whole table as an nn.Embedding, on rank ``dst`` or on every rank; None elsewhere (collective).

        Rows travel in pieces of 16 MiB.
        """
        if dst is not None and not 0 <= dst < self.world_size:
            raise ValueError(
                f"dst must be a rank of the table's process group, within [0, {self.world_size}), but is {dst}"
            )
        subject = subject_of("the gathering", [self])
        whole = gather_whole(self.weight.detach(), self.partition, self.group, dst, subject)
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
    def process_group(self) -> dist.ProcessGroup | None:
        """The process group of these ranks; None if there is but one."""
        return self.group.process_group

    @property
    def transport(self) -> Transport:
        """How rows and gradients move between these ranks."""
        return self.group.transport

    @property
    def statistics(self) -> ExchangeStatistics:
        """What exchanges have cost this rank, those of all tables of the same group together."""
        return self.group.statistics

    @torch.no_grad()
    def reset_parameters(self, first_row: int = 0) -> None:
        """Set the local rows from ``first_row`` on to their initial values, in blocks that fit the cache (local)."""
        if self.weight.is_meta:
            return
        if self.init_std == 0:
            self.weight[first_row:].zero_()
            return
        block = max(1, _INITIALIZE_ELEMENTS // self.embedding_dim)
        for start in range(first_row, len(self.weight), block):
            self.initialize_rows(torch.arange(start, min(start + block, len(self.weight))))

    @torch.no_grad()
    def initialize_rows(self, rows: Tensor) -> None:
        """Set local rows, int64 [N], to their initial values (local)."""
        rows = rows.to(self.weight.device)
        values = normal_rows(self.partition.ids_of_rows(self.rank, rows), self.embedding_dim, self.seed)
        values.mul_(self.init_std)
        if self.padding_row is not None:
            values[rows == self.padding_row] = 0
        self.weight[rows] = values.to(self.weight.dtype)

    def plan(self, ids: Tensor) -> ExchangePlan:
        """Exchange the ids but not yet the rows, for any number of lookups of the same ids (collective).

        Raises:
            IndexError, TypeError: on every rank, if any rank's ids are out of range or not integers.
        """
        return make_plan([self], [ids])

    def forward(self, ids: Tensor, plan: ExchangePlan | None = None) -> Tensor:
        """Return the rows of ``ids``, [*ids.shape, embedding_dim] (collective, and so is its backward).

        Args:
            ids: integers of any shape; ranks may have different shapes, or no ids at all.
            plan: the result of ``self.plan(ids)`` for these very ids, if that was called before: on every rank or on
                none.

        Raises:
            IndexError, TypeError, ValueError, RuntimeError: on every rank, as ``lookup``.
        """
        if torch.compiler.is_exporting():
            return exported_lookup(self, ids)
        return self._look_up(ids, plan)

    @never_compiled
    def _look_up(self, ids: Tensor, plan: ExchangePlan | None) -> Tensor:
        return lookup([self], [ids], plan)[0]

    def grow(self, num_embeddings: int, optimizer: Optimizer | None = None) -> None:
        """Make room for more ids (collective). New rows are those that a table of this size would have begun with.

        Gradients are dropped.

        Args:
            num_embeddings: the new size, the same on every rank.
            optimizer: its state of ``weight`` moves along, if it has a row for each row; that of new rows is 0.

        Raises:
            ValueError: for a smaller size.
        """
        growing.grow(self, num_embeddings, optimizer)

    def reset_rows(self, ids: Tensor, optimizer: Optimizer | None = None) -> None:
        """Give rows their initial values again, and 0 to the optimizer's state of them (collective).

        Args:
            ids: integers of any shape, of rows on any rank; each rank may name others, or none.
            optimizer: its state of these rows is set to 0.

        Raises:
            IndexError, TypeError: as ``plan``.
        """
        growing.reset_rows(self, ids, optimizer)

    def extra_repr(self) -> str:
        """Return what print(module) shows between the parentheses."""
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
        reads_in_place = self.world_size > 1 and self.is_in_place and self.max_norm is None
        in_place = ", rows read in place" if reads_in_place else ""
        return (
            f"{self.num_embeddings}, {self.embedding_dim}{''.join(set_options)}, layout={self.partition.layout}, "
            f"transport={self.group.transport.name}{in_place}, "
            f"rank {self.rank} of {self.world_size} holds {len(self.weight)} rows"
        )
