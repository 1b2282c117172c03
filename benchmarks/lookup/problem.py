"""What the contenders of lookup_bench.py have in common: the problem, its batches, first rows, and an interface."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.samplers import draw_ids
from dist_s2s.sharded import ExchangeStatistics
from dist_s2s.sharded.tables.initialize import normal_rows

Update = Literal["RowWiseAdagrad", "SGD"]
SEED = 1
LEARNING_RATE = 0.1
EPS = 1e-10  # of RowWiseAdagrad
_FILL_ROWS = 4096  # rows initialised at a time, so that a table's peak memory is not that of the generator


@dataclass(frozen=True)
class Problem:
    """What every contender works on, and where.

    Attributes:
        ids: How many each rank has.
        skew: The exponent of the ids' density, see ``draw_ids``.
        ids_per_bag: How many ids are summed to an output; 1 for rows as they are. Divides ``ids``.
    """

    num_embeddings: int
    embedding_dim: int
    ids: int
    skew: float = 1.0
    device: str = "cpu"
    ids_per_bag: int = 1

    @property
    def is_pooled(self) -> bool:
        """Whether rows are summed in bags."""
        return self.ids_per_bag > 1

    def pool(self, rows: Tensor) -> Tensor:
        """Return the sums of each bag's rows, [N / ids_per_bag, D], from rows, [N, D]."""
        return rows.view(-1, self.ids_per_bag, rows.shape[1]).sum(1) if self.is_pooled else rows


@dataclass(frozen=True)
class Batch:
    """One rank's input of one step: ids, int64 [N], and the gradient of the outputs, float32 [N / ids_per_bag, D]."""

    ids: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Contender:
    """A table and its optimizer.

    Attributes:
        lookup: Maps prepared ids to rows, [N, D], or to the sums of bags, [N / ids_per_bag, D].
        update: What follows a backward from those rows.
        prepare: Brings ids, int64 [N], into the form in which a program of that system would hold them anyway; its time
            does not count.
        gradient_scale: Multiplies the loss's gradient, untimed, where a system sums what others average.
        statistics: Where a system counts its exchanges, if it does; the collectives of the others are observed.
    """

    lookup: Callable[[Any], Tensor]
    update: Callable[[], None]
    prepare: Callable[[Tensor], Any] = lambda ids: ids
    gradient_scale: float = 1.0
    statistics: ExchangeStatistics | None = None

    def step(self, batch: Batch) -> Tensor:
        """Train one step, untimed (collective), and return the rows that were looked up."""
        rows = self.lookup(self.prepare(batch.ids))
        rows.backward(batch.gradient * self.gradient_scale)
        self.update()
        return rows.detach()


def draw_batch(problem: Problem, rank: int, number: int) -> Batch:
    """Return the rank's batch with this number, drawn from a seed of its own."""
    generator = torch.Generator().manual_seed(SEED + 1_000_003 * number + rank)
    ids = draw_ids(problem.ids, problem.num_embeddings, generator, problem.skew)
    gradient = torch.randn(problem.ids // problem.ids_per_bag, problem.embedding_dim, generator=generator)
    return Batch(ids.to(problem.device), gradient.to(problem.device))


def first_rows(ids: Tensor, embedding_dim: int) -> Tensor:
    """Return the values, [N, D], that DistributedEmbedding draws for these ids when it is made with ``SEED``."""
    return normal_rows(ids, embedding_dim, SEED)


@torch.no_grad()
def fill(weight: Tensor, first_id: int) -> None:
    """Set rows, [R, D], to the first rows of the ids from ``first_id`` on."""
    for start in range(0, len(weight), _FILL_ROWS):
        block = weight[start : start + _FILL_ROWS]
        ids = torch.arange(first_id + start, first_id + start + len(block))
        block.copy_(first_rows(ids, weight.shape[1]))


def stepping(optimizer: Optimizer) -> Callable[[], None]:
    """Return the usual ``update``: the optimizer's step, after which the gradients are gone."""

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return update


def shard_of(problem: Problem, rank: int, world_size: int) -> range:
    """Return a rank's ids in blocks of ceil(V / W), as Megatron, DTensor and TorchRec divide a table."""
    rows = -(-problem.num_embeddings // world_size)
    return range(problem.num_embeddings)[rank * rows : (rank + 1) * rows]
