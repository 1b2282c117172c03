"""Ways to train a table on several ranks with plain PyTorch: Megatron's, DTensor's and DistributedDataParallel's.

Each rank has ids and gradients of its own, as in data-parallel training. Megatron and DTensor divide a table for ranks
that share their batch; so here they first gather the ids of all ranks, and in backward the gradients.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from lookup.contenders_ours import optimizer
from lookup.problem import Contender, Problem, Update, fill, shard_of, stepping


def megatron(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build a vocabulary-parallel table: each rank looks up all ids, zeroes the rows it lacks, and all_reduces them.

    Megatron's own gradient is dense, as large as the shard; here it is sparse, of the rank's own rows alone, and so is
    the update, which favours it. (Megatron-Core can also reduce_scatter, which takes longer than all_reduce on gloo.)
    """
    table = _MaskedTable(problem, group)
    scale = 1 / dist.get_world_size(group)  # others average gradients over ranks
    return Contender(table, stepping(optimizer(update, table)), gradient_scale=scale)


class _MaskedTable(nn.Module):
    def __init__(self, problem: Problem, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.own, self.group = shard_of(problem, dist.get_rank(group), dist.get_world_size(group)), group
        self.weight = nn.Parameter(torch.empty(len(self.own), problem.embedding_dim))
        fill(self.weight.detach(), self.own.start)

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = _MaskedLookup.apply(self.weight, ids, self.own, self.group)  # type: ignore[no-untyped-call]
        return rows


class _MaskedLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, own: range, group: dist.ProcessGroup) -> Tensor:
        all_ids = _all_gather(ids, group)
        foreign = (all_ids < own.start) | (all_ids >= own.stop)
        rows = F.embedding((all_ids - own.start).masked_fill_(foreign, 0), weight)
        rows.masked_fill_(foreign[:, None], 0)
        dist.all_reduce(rows, group=group)
        ctx.group, ctx.shape = group, weight.shape
        ctx.positions = foreign.logical_not_().nonzero()[:, 0]
        ctx.rows = all_ids[ctx.positions] - own.start
        mine: Tensor = rows.split(len(ids))[dist.get_rank(group)]
        return mine

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        values = _all_gather(gradient, ctx.group).index_select(0, ctx.positions)
        sparse = torch.sparse_coo_tensor(ctx.rows[None], values, ctx.shape, check_invariants=False)
        return sparse, None, None, None


def _all_gather(mine: Tensor, group: dist.ProcessGroup) -> Tensor:
    gathered = mine.new_empty(dist.get_world_size(group), *mine.shape)
    dist.all_gather(list(gathered), mine.contiguous(), group=group)
    return gathered.flatten(0, 1)


def dtensor(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build RowwiseParallel, from ids divided over ranks to rows divided alike; its gradient is a dense shard."""
    table = nn.Embedding(problem.num_embeddings, problem.embedding_dim, device="meta")
    divided = RowwiseParallel(input_layouts=Shard(0), output_layouts=Shard(0))
    parallelize_module(table, DeviceMesh.from_group(group, "cpu"), divided).to_empty(device="cpu")
    own = shard_of(problem, dist.get_rank(group), dist.get_world_size(group))
    assert isinstance(table.weight, DTensor)
    fill(table.weight.to_local().detach(), own.start)

    def lookup(ids: Tensor) -> Tensor:
        rows: Tensor = table(ids)
        if isinstance(rows, AsyncCollectiveTensor):
            rows.trigger_wait()  # else they would arrive at their first use
        return rows

    scale = 1 / dist.get_world_size(group)
    return Contender(lookup, stepping(optimizer(update, table)), gradient_scale=scale)


def ddp(update: Update, problem: Problem, group: dist.ProcessGroup, sparse: bool) -> Contender:
    """Build the whole table on each rank; DistributedDataParallel all_reduces its gradient, sparse or a whole table."""
    # A bucket that is also the gradient saves DDP a third of its memory and a copy of the table in each step.
    table = DistributedDataParallel(
        _whole_table(problem, sparse), process_group=group, gradient_as_bucket_view=not sparse
    )
    return Contender(table, stepping(optimizer(update, table)))


def embedding(update: Update, problem: Problem, group: dist.ProcessGroup, sparse: bool) -> Contender:
    """Build an nn.Embedding for the only rank; its gradient is sparse or as large as the table."""
    table = _whole_table(problem, sparse)
    return Contender(table, stepping(optimizer(update, table)))


def _whole_table(problem: Problem, sparse: bool) -> nn.Embedding:
    weight = torch.empty(problem.num_embeddings, problem.embedding_dim, device=problem.device)
    fill(weight, 0)
    table: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False, sparse=sparse)
    return table
