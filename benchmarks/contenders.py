"""Four ways to train an embedding table on several ranks, each behind the same three steps.

sharded       DistributedEmbedding: each rank holds V/W rows, rows and gradients travel by all_to_all.
local         The floor. Each rank trains a DistributedEmbedding of its own that never communicates. It has as many rows
              as a shard (V/W, rounded down), and ids are taken modulo that number. The kernels are those of
              ``sharded``, so the difference is the price of the exchange. It does not compute what the others do.
replicated    Each rank holds all rows in nn.Embedding(sparse=True); the ids and row gradients of all ranks are
              all_gathered, and every rank applies them all.
ddp           Each rank holds all rows in a dense nn.Embedding inside DistributedDataParallel.

All but ``local`` apply the mean over ranks of their gradients, and so end with the same table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from dist_s2s.sharded import DistributedEmbedding, ExchangeStatistics, RowWiseAdagrad
from dist_s2s.sharded.initialize import normal_rows

Kind = Literal["sharded", "local", "replicated", "ddp"]
Update = Literal["RowWiseAdagrad", "SGD"]
Layout = Literal["contiguous", "round_robin"]
SEED = 1
LEARNING_RATE = 0.1
_FILL_ROWS = 4096  # rows initialised at a time, so that a table's peak memory is not that of the generator


@dataclass(frozen=True)
class Problem:
    """What every contender works on; ``skew`` is the exponent s of the ids' density, see ``draw_batch``."""

    num_embeddings: int
    embedding_dim: int
    ids: int
    skew: float = 1.0
    layout: Layout = "contiguous"


@dataclass(frozen=True)
class Batch:
    """One rank's input of one step: ids, int64 [N], and the gradient of their rows, float32 [N, D]."""

    ids: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Contender:
    """A table and its optimizer. ``after_backward`` is what must happen between backward and the update."""

    lookup: Callable[[Tensor], Tensor]
    optimizer: Optimizer
    statistics: ExchangeStatistics
    after_backward: Callable[[], None]

    def learn(self, rows: Tensor, gradient: Tensor) -> None:
        """Backward from the looked-up rows, given the loss's gradient by them, and the update (collective)."""
        rows.backward(gradient)
        self.after_backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def draw_batch(problem: Problem, rank: int, number: int) -> Batch:
    """The rank's batch of that number, from a seed of its own.

    An id i has a probability of about (i + 1)^-skew: 1 draws log-uniform ids, like the words of a text that
    are numbered by falling frequency (Zipf's law), and 0 uniform ones.
    """
    generator = torch.Generator().manual_seed(SEED + 1_000_003 * number + rank)
    uniform = torch.rand(problem.ids, generator=generator, dtype=torch.float64)
    end, power = problem.num_embeddings + 1.0, 1.0 - problem.skew
    value = end**uniform if abs(power) < 1e-9 else (1 + uniform * (end**power - 1)) ** (1 / power)
    ids = (value.long() - 1).clamp_(0, problem.num_embeddings - 1)
    return Batch(ids, torch.randn(problem.ids, problem.embedding_dim, generator=generator))


def build(kind: Kind, update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Builds a contender on all ranks of ``group`` (collective); all but ``local`` start from the same global table."""
    match kind:
        case "sharded":
            return _sharded(update, problem, group)
        case "local":
            return _local(update, problem, group)
        case "replicated":
            return _replicated(problem, group)
        case "ddp":
            return _ddp(problem, group)


def _sharded(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    table = DistributedEmbedding(
        problem.num_embeddings, problem.embedding_dim, layout=problem.layout, process_group=group, seed=SEED
    )
    return Contender(table, _optimizer(update, table), table.statistics, _nothing)


def _local(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    num_rows = max(1, problem.num_embeddings // dist.get_world_size(group))
    alone, _ = dist.new_subgroups(group_size=1)  # in which a table calls no collectives
    table = DistributedEmbedding(num_rows, problem.embedding_dim, process_group=alone, seed=SEED)
    return Contender(lambda ids: table(ids % num_rows), _optimizer(update, table), table.statistics, _nothing)


def _replicated(problem: Problem, group: dist.ProcessGroup) -> Contender:
    table = _whole_table(problem, sparse=True)
    statistics = ExchangeStatistics()

    def gather_gradients() -> None:
        gradient = table.weight.grad
        assert gradient is not None
        # As they are: to coalesce them first costs about what it saves, and makes the ranks' sizes differ.
        ids = _all_gather(gradient._indices()[0], group, statistics)
        values = _all_gather(gradient._values() / dist.get_world_size(group), group, statistics)
        table.weight.grad = torch.sparse_coo_tensor(ids[None], values, table.weight.shape, check_invariants=False)

    return Contender(table, SGD(table.parameters(), LEARNING_RATE), statistics, gather_gradients)


def _ddp(problem: Problem, group: dist.ProcessGroup) -> Contender:
    table = _whole_table(problem, sparse=False)
    # A bucket that is also the gradient saves DDP a third of its memory and a copy of the table in each step.
    replica = DistributedDataParallel(table, process_group=group, gradient_as_bucket_view=True)
    statistics = ExchangeStatistics()

    def count_all_reduce() -> None:  # DDP has done it in backward: one parameter is one bucket
        statistics.collectives += 1
        statistics.bytes_sent += table.weight.numel() * table.weight.element_size()

    return Contender(replica, SGD(replica.parameters(), LEARNING_RATE), statistics, count_all_reduce)


@torch.no_grad()
def _whole_table(problem: Problem, sparse: bool) -> nn.Embedding:
    """All rows on this rank, with the values that DistributedEmbedding draws from the same seed."""
    weight = torch.empty(problem.num_embeddings, problem.embedding_dim)
    for block in torch.arange(problem.num_embeddings).split(_FILL_ROWS):
        weight[block[0] : block[-1] + 1] = normal_rows(block, problem.embedding_dim, SEED)
    table: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False, sparse=sparse)
    return table


def _optimizer(update: Update, table: nn.Module) -> Optimizer:
    optimizer = RowWiseAdagrad if update == "RowWiseAdagrad" else SGD
    return optimizer(table.parameters(), lr=LEARNING_RATE)


def _all_gather(mine: Tensor, group: dist.ProcessGroup, statistics: ExchangeStatistics) -> Tensor:
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, mine.contiguous(), group=group)
    statistics.collectives += 1
    statistics.bytes_sent += mine.numel() * mine.element_size()
    return torch.cat(gathered)


def _nothing() -> None:
    pass
