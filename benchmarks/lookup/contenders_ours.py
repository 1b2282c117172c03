"""DistributedEmbedding in all its variants, and the floor: what it would cost if no row had to travel."""

from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from dist_s2s.sharded import DistributedEmbedding, DistributedEmbeddingBag, RowWiseAdagrad
from lookup.problem import EPS, LEARNING_RATE, SEED, Contender, Problem, Update, stepping


def ours(update: Update, problem: Problem, group: dist.ProcessGroup, **settings: Any) -> Contender:
    """Build a table with these settings."""
    table = _table(problem.num_embeddings, problem, process_group=group, **settings)
    return Contender(
        table, stepping(optimizer(update, table)), lambda ids: _shaped(ids, problem), statistics=table.statistics
    )


def floor(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build a table on each rank that never communicates.

    It has as many rows as a shard (V/W, rounded down), and ids are taken modulo that number. The kernels are ours, so
    the difference is the price of the exchange. It does not compute what the others do.
    """
    num_rows = max(1, problem.num_embeddings // dist.get_world_size(group))
    alone, _ = dist.new_subgroups(group_size=1)  # in which a table calls no collectives
    table = _table(num_rows, problem, process_group=alone)
    return Contender(
        table,
        stepping(optimizer(update, table)),
        prepare=lambda ids: _shaped(ids % num_rows, problem),
        statistics=table.statistics,
    )


def _table(num_rows: int, problem: Problem, **settings: Any) -> DistributedEmbedding:
    settings |= {"seed": SEED, "device": problem.device}
    if problem.is_pooled:
        return DistributedEmbeddingBag(num_rows, problem.embedding_dim, mode="sum", **settings)
    return DistributedEmbedding(num_rows, problem.embedding_dim, **settings)


def _shaped(ids: Tensor, problem: Problem) -> Tensor:
    return ids.view(-1, problem.ids_per_bag) if problem.is_pooled else ids


def optimizer(update: Update, table: nn.Module) -> Optimizer:
    """Build the optimizer of a table with sparse gradients."""
    if update == "SGD":
        return SGD(table.parameters(), LEARNING_RATE)
    return RowWiseAdagrad(table.parameters(), LEARNING_RATE, EPS)
