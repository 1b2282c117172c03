"""DistributedEmbedding in all its variants, and the floor: what it would cost if no row had to travel."""

from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import SGD, Optimizer

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad
from lookup.problem import EPS, LEARNING_RATE, SEED, Contender, Problem, Update, stepping


def ours(update: Update, problem: Problem, group: dist.ProcessGroup, **settings: Any) -> Contender:
    """Build a DistributedEmbedding with these settings."""
    settings |= {"process_group": group, "seed": SEED, "device": problem.device}
    table = DistributedEmbedding(problem.num_embeddings, problem.embedding_dim, **settings)
    return Contender(table, stepping(optimizer(update, table)), statistics=table.statistics)


def floor(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build a DistributedEmbedding on each rank that never communicates.

    It has as many rows as a shard (V/W, rounded down), and ids are taken modulo that number. The kernels are ours, so
    the difference is the price of the exchange. It does not compute what the others do.
    """
    num_rows = max(1, problem.num_embeddings // dist.get_world_size(group))
    alone, _ = dist.new_subgroups(group_size=1)  # in which a table calls no collectives
    settings: dict[str, Any] = {"process_group": alone, "seed": SEED, "device": problem.device}
    table = DistributedEmbedding(num_rows, problem.embedding_dim, **settings)
    return Contender(
        table, stepping(optimizer(update, table)), prepare=lambda ids: ids % num_rows, statistics=table.statistics
    )


def optimizer(update: Update, table: nn.Module) -> Optimizer:
    """Build the optimizer of a table with sparse gradients."""
    if update == "SGD":
        return SGD(table.parameters(), LEARNING_RATE)
    return RowWiseAdagrad(table.parameters(), LEARNING_RATE, EPS)
