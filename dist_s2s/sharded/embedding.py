"""DistributedEmbedding: nn.Embedding with its rows divided among the ranks of a process group."""

from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded.agreement import check_same_on_all_ranks, gather_texts
from dist_s2s.sharded.exchange import (
    ExchangePlan,
    ExchangeStatistics,
    fetch_rows,
    make_plan,
    rank_and_size,
    return_gradients,
)
from dist_s2s.sharded.initialize import normal_rows
from dist_s2s.sharded.partition import Layout, RowPartition

GradReduction = Literal["mean", "sum"]
_INITIALIZE_ELEMENTS = 1 << 18  # about 1 MiB of float32 at a time: its temporaries stay in the cache
_DTYPES = (torch.float32, torch.float64)


class DistributedEmbedding(nn.Module):
    """A lookup table of which each rank holds num_embeddings / world_size rows.

    Used like ``nn.Embedding``: ids of any integer shape in, rows of shape ``ids.shape + (embedding_dim,)`` out, each
    rank with a batch of its own. Building it, looking up, and running backward through a lookup are collective: every
    rank of the group takes part, each time, also with no ids at all. See exchange.py for the protocol.

    ``weight`` is the local shard, [shard rows, embedding_dim]; its ``grad`` is a coalesced sparse tensor that holds
    just the rows which some rank looked up, so torch.optim.SGD, Adagrad and SparseAdam work on it unchanged.

    num_embeddings, embedding_dim: size of the whole table, the same on every rank.
    padding_idx: id of a row that starts as zeros and never receives a gradient.
    layout: "contiguous" or "round_robin", see RowPartition.
    grad_reduction: "mean" divides the summed gradients by the number of ranks, as DistributedDataParallel does for the
        rest of the model; "sum" leaves them as they are.
    process_group: the ranks that share the table. By default a new group of all ranks, because collectives of a table
        and of DistributedDataParallel may start in another order on another rank, and so must not share a group.
        Without an initialised process group the table is local.
    seed: seed of the initial rows, which are standard normal as in nn.Embedding and the same at every world size. By
        default rank 0 draws it from torch's generator, so that torch.manual_seed decides it.

    Raises ValueError on every rank if the ranks do not agree on the sizes, the dtype, padding_idx or the layout.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        layout: Layout = "contiguous",
        grad_reduction: GradReduction = "mean",
        process_group: dist.ProcessGroup | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if process_group is None and dist.is_available() and dist.is_initialized():
            process_group = dist.new_group()
        self.rank, self.world_size = rank_and_size(process_group)
        self.process_group = process_group if self.world_size > 1 else None
        dtype = torch.get_default_dtype() if dtype is None else dtype
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        if self.process_group is not None:
            # Before they are checked, so that what is wrong on one rank is an error on all.
            settings = {
                "num_embeddings": num_embeddings,
                "embedding_dim": embedding_dim,
                "padding_idx": padding_idx,
                "layout": layout,
                "grad_reduction": grad_reduction,
                "dtype": dtype,
            }
            check_same_on_all_ranks(settings, self.process_group, device)
            seed = int(gather_texts(str(seed), self.process_group, device)[0])
        if num_embeddings < 1 or embedding_dim < 1:
            raise ValueError(
                f"num_embeddings and embedding_dim must be positive, but are {num_embeddings} and {embedding_dim}"
            )
        if grad_reduction not in get_args(GradReduction):
            raise ValueError(f"grad_reduction must be mean or sum, but is {grad_reduction!r}")
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(str, _DTYPES))}, but is {dtype}")

        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = _checked_padding_idx(padding_idx, num_embeddings)
        self.grad_reduction = grad_reduction
        self.partition = RowPartition(num_embeddings, self.world_size, layout)
        self.statistics = ExchangeStatistics()
        self._padding_row = self._local_row(self.padding_idx)
        rows = self.partition.shard_size(self.rank)
        self.weight = nn.Parameter(torch.empty(rows, embedding_dim, device=device, dtype=dtype))
        # A second backward before the optimizer's step adds to the gradient; torch would only append the rows.
        self.weight.register_post_accumulate_grad_hook(_coalesce_gradient)
        self.reset_parameters(seed)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Fills the shard from ``seed``, block by block; needs no communication."""
        block = max(1, _INITIALIZE_ELEMENTS // self.embedding_dim)
        for start in range(0, len(self.weight), block):
            stop = min(start + block, len(self.weight))
            ids = self.partition.ids(self.rank, start, stop).to(self.weight.device)
            self.weight[start:stop] = normal_rows(ids, self.embedding_dim, seed)
        if self._padding_row is not None:
            self.weight[self._padding_row] = 0

    def plan(self, ids: Tensor) -> ExchangePlan:
        """Exchanges the ids but not yet the rows (collective). The plan serves any number of lookups of the same ids.

        Raises the same IndexError or TypeError on every rank if any rank's ids are out of range or not integers.
        """
        return make_plan(ids, self.partition, self.process_group, self.statistics)

    def forward(self, ids: Tensor, plan: ExchangePlan | None = None) -> Tensor:
        """Rows of ``ids``, [*ids.shape, embedding_dim] (collective, and so is its backward).

        plan: the result of ``self.plan(ids)`` for these very ids, if that was called before: on every rank or on none.
        Raises as ``plan`` does, and ValueError, on this rank alone, for a plan of ids of another shape.
        """
        plan = self.plan(ids) if plan is None else plan
        if plan.shape != ids.shape:
            raise ValueError(f"the plan is of ids of shape {tuple(plan.shape)}, but ids has {tuple(ids.shape)}")
        rows: Tensor = _Lookup.apply(self.weight, plan, self)  # type: ignore[no-untyped-call]
        return rows

    def extra_repr(self) -> str:
        """What print(module) shows between the parentheses."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return (
            f"{self.num_embeddings}, {self.embedding_dim}{padding}, layout={self.partition.layout}, "
            f"rank {self.rank} of {self.world_size} holds {len(self.weight)} rows"
        )

    def _local_row(self, row_id: int | None) -> int | None:
        """The row's number within the local shard, or None if it is another rank's."""
        if row_id is None:
            return None
        owner, row = self.partition.owner_and_row(row_id)
        return row if owner == self.rank else None


class _Lookup(torch.autograd.Function):
    """From the local shard to the rows of this rank's ids; backward is the dual exchange."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, plan: ExchangePlan, table: DistributedEmbedding) -> Tensor:
        ctx.plan, ctx.table = plan, table
        distinct_rows = fetch_rows(plan, weight, table.process_group, table.statistics)
        return distinct_rows.index_select(0, plan.inverse).view(*plan.shape, table.embedding_dim)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        plan: ExchangePlan = ctx.plan
        table: DistributedEmbedding = ctx.table
        output_gradient = grad_outputs[0].reshape(-1, table.embedding_dim)
        distinct = output_gradient.new_zeros(plan.num_distinct, table.embedding_dim)
        distinct.index_add_(0, plan.inverse, output_gradient)
        if table.grad_reduction == "mean":
            distinct.div_(table.world_size)
        returned = return_gradients(plan, distinct, table.process_group, table.statistics)
        rows, places = plan.merged
        gradient = returned.new_zeros(len(rows), table.embedding_dim).index_add_(0, places, returned)
        if table._padding_row is not None:
            kept = rows != table._padding_row
            rows, gradient = rows[kept], gradient[kept]
        sparse = torch.sparse_coo_tensor(
            rows[None], gradient, table.weight.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None, None


def _coalesce_gradient(parameter: Tensor) -> None:
    """Merges what two backwards have appended; after a single one it just restores the mark that torch drops."""
    gradient = parameter.grad
    if gradient is None or gradient.is_coalesced():
        return
    indices, values = gradient._indices(), gradient._values()
    if bool((indices[0, 1:] > indices[0, :-1]).all()):
        gradient = torch.sparse_coo_tensor(indices, values, gradient.shape, is_coalesced=True, check_invariants=False)
    parameter.grad = gradient.coalesce()


def _checked_padding_idx(padding_idx: int | None, num_embeddings: int) -> int | None:
    """A padding_idx within [0, num_embeddings); negative ones count from the end, as in nn.Embedding."""
    if padding_idx is None:
        return None
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(f"padding_idx {padding_idx} is outside [{-num_embeddings}, {num_embeddings})")
    return padding_idx % num_embeddings
