"""What the contenders of lookup_bench.py have in common: the problem, its batches, first rows, and an interface."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from dist_s2s.sharded import ExchangeStatistics
from dist_s2s.sharded.initialize import normal_rows

Update = Literal["RowWiseAdagrad", "SGD"]
Layout = Literal["contiguous", "round_robin"]
SEED = 1
LEARNING_RATE = 0.1
EPS = 1e-10  # of RowWiseAdagrad
SAME_ID = math.inf  # the skew with which all ids are equal
_FILL_ROWS = 4096  # rows initialised at a time, so that a table's peak memory is not that of the generator


@dataclass(frozen=True)
class Problem:
    """What every contender works on; ``skew`` is the exponent s of the ids' density, see ``draw_batch``."""

    num_embeddings: int
    embedding_dim: int
    ids: int
    skew: float = 1.0


@dataclass(frozen=True)
class Batch:
    """One rank's input of one step: ids, int64 [N], and the gradient of their rows, float32 [N, D]."""

    ids: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Contender:
    """A table and its optimizer.

    lookup: from prepared ids to rows, [N, D]. update: what follows a backward from them. prepare: brings ids, int64
    [N], into the form in which a program of that system would hold them anyway; its time does not count.
    gradient_scale: multiplies the loss's gradient, also beforehand, where a system sums what others average.
    statistics: where a system that counts its exchanges does so; the others' collectives are observed.
    """

    lookup: Callable[[Any], Tensor]
    update: Callable[[], None]
    prepare: Callable[[Tensor], Any] = lambda ids: ids
    gradient_scale: float = 1.0
    statistics: ExchangeStatistics | None = None

    def step(self, batch: Batch) -> Tensor:
        """One step of training, untimed (collective). Returns the rows that it looked up."""
        rows = self.lookup(self.prepare(batch.ids))
        rows.backward(batch.gradient * self.gradient_scale)
        self.update()
        return rows.detach()


def draw_batch(problem: Problem, rank: int, number: int) -> Batch:
    """The rank's batch of that number, from a seed of its own.

    An id i has a probability of about (i + 1)^-skew: 1 draws log-uniform ids, like the words of a text that
    are numbered by falling frequency (Zipf's law), 0 uniform ones, and SAME_ID only id 0.
    """
    generator = torch.Generator().manual_seed(SEED + 1_000_003 * number + rank)
    uniform = torch.rand(problem.ids, generator=generator, dtype=torch.float64)
    end, power = problem.num_embeddings + 1.0, 1.0 - problem.skew
    value = end**uniform if abs(power) < 1e-9 else (1 + uniform * (end**power - 1)) ** (1 / power)
    ids = (value.long() - 1).clamp_(0, problem.num_embeddings - 1)
    return Batch(ids, torch.randn(problem.ids, problem.embedding_dim, generator=generator))


@torch.no_grad()
def fill(weight: Tensor, first_id: int) -> None:
    """Sets rows, [R, D], to the values that DistributedEmbedding draws for ids from ``first_id`` on."""
    for start in range(0, len(weight), _FILL_ROWS):
        block = weight[start : start + _FILL_ROWS]
        ids = torch.arange(first_id + start, first_id + start + len(block))
        block.copy_(normal_rows(ids, weight.shape[1], SEED))


def stepping(optimizer: Optimizer) -> Callable[[], None]:
    """The usual ``update``: the optimizer's step, after which the gradients are gone."""

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return update


def shard_of(problem: Problem, rank: int, world_size: int) -> range:
    """The ids of a rank's rows in blocks of ceil(V / W), as Megatron, DTensor and TorchRec divide a table."""
    rows = -(-problem.num_embeddings // world_size)
    return range(problem.num_embeddings)[rank * rows : (rank + 1) * rows]
