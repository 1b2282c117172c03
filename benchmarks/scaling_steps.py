"""A rank's part in scaling_bench.py: tables of several sizes, what their steps compute, and how long they take."""

import random
import time
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import torch
import torch.distributed as dist
from contenders import LEARNING_RATE, SEED, Batch, Layout, Problem, draw_batch
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, SampledSoftmaxLoss

Kind = Literal["lookup", "sampled"]
Way = Literal["same", "spread"]
STEPS_PER_TURN = 5


@dataclass(frozen=True)
class Settings:
    """Sizes of the tables, rising, and what a rank does in a step."""

    num_embeddings: tuple[int, ...]
    embedding_dim: int
    ids: int
    tokens: int
    num_samples: int
    layout: Layout

    @property
    def smallest(self) -> int:
        """Rows of the smallest table, from which all batches are drawn."""
        return self.num_embeddings[0]


@dataclass(frozen=True)
class Entry:
    """What is timed."""

    kind: Kind
    num_embeddings: int
    way: Way


class Timing(TypedDict):
    """An entry on one rank: seconds of each step, and how many rows of its shard a step updates on average."""

    seconds: list[float]
    updated_rows: float


class RankResult(TypedDict):
    """What one rank found: what differs from the smallest table's, and the timings in the order of ``entries``."""

    differences: list[str]
    timings: list[Timing]


class Model:
    """A table that is looked up and is also the output table of a sampled softmax, with a bias."""

    def __init__(self, num_embeddings: int, settings: Settings, group: dist.ProcessGroup) -> None:
        dim, layout = settings.embedding_dim, settings.layout
        self.table = DistributedEmbedding(
            num_embeddings, dim, layout=layout, init_std=dim**-0.5, process_group=group, seed=SEED
        )
        self.bias = DistributedEmbedding(num_embeddings, 1, layout=layout, init_std=0, process_group=group)
        self.optimizer = RowWiseAdagrad([self.table.weight, self.bias.weight], lr=LEARNING_RATE)
        self.losses: dict[Way, SampledSoftmaxLoss] = {
            "same": self._loss(settings.num_samples, settings.smallest),
            "spread": self._loss(settings.num_samples, num_embeddings),
        }
        # A remainder of 1 by the ranks leaves each id with its owner in the round-robin layout; in the contiguous one
        # any factor leaves the owners about their shares.
        factor = num_embeddings // settings.smallest
        self.factors: dict[Way, int] = {"same": 1, "spread": factor - (factor - 1) % self.table.world_size}

    def step(self, kind: Kind, way: Way, batch: Batch) -> tuple[Tensor, int]:
        """A step of training (collective): rows or loss, and the number of rows that this rank has updated.

        batch: ids and the gradient of their rows, or for "sampled" targets and hidden states.
        """
        ids = batch.ids * self.factors[way]
        if kind == "lookup":
            output: Tensor = self.table(ids)
            output.backward(batch.gradient)
        else:
            output = self.losses[way](batch.gradient.requires_grad_(), ids)
            output.backward()
        assert self.table.weight.grad is not None
        updated = self.table.weight.grad._nnz()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return output.detach(), updated

    def _loss(self, num_samples: int, num_classes: int) -> SampledSoftmaxLoss:
        return SampledSoftmaxLoss(self.table, self.bias, num_samples=num_samples, num_classes=num_classes, seed=SEED)


def entries(settings: Settings) -> list[Entry]:
    """Of each kind the smallest table's first, which the others are compared with."""
    smallest, *larger = settings.num_embeddings
    return [
        entry
        for kind in get_args(Kind)
        for entry in (Entry(kind, smallest, "same"), *(Entry(kind, v, way) for v in larger for way in get_args(Way)))
    ]


def measure(group: dist.ProcessGroup, settings: Settings, repetitions: int) -> RankResult:
    """One rank's part; all ranks of ``group`` call it together."""
    rank = dist.get_rank(group)
    models = {v: Model(v, settings, group) for v in settings.num_embeddings}
    differences = compare(models, settings, group)
    timings: list[Timing] = [{"seconds": [], "updated_rows": 0.0} for _ in entries(settings)]
    pairs = list(zip(entries(settings), timings, strict=True))
    for turn in range(repetitions + 1):
        # In another order in each turn, the same on every rank: what runs before leaves the caches warm or cold.
        for entry, timing in random.Random(turn).sample(pairs, len(pairs)):
            updated = 0
            for number in range(STEPS_PER_TURN):
                # Every entry of a kind meets the same batches, and new ones in each step.
                batch = draw(entry.kind, settings, rank, 1 + turn * STEPS_PER_TURN + number)
                dist.barrier(group)
                start = time.perf_counter()
                updated += models[entry.num_embeddings].step(entry.kind, entry.way, batch)[1]
                if turn > 0:  # the first turn warms up: it is the first to touch much of the optimizer's state
                    timing["seconds"].append(time.perf_counter() - start)
            timing["updated_rows"] = updated / STEPS_PER_TURN
    return {"differences": differences, "timings": timings}


def draw(kind: Kind, settings: Settings, rank: int, number: int) -> Batch:
    """The rank's batch of that number; hidden states are normal, as gradients are."""
    size = settings.ids if kind == "lookup" else settings.tokens
    return draw_batch(Problem(settings.smallest, settings.embedding_dim, size), rank, number)


def compare(models: dict[int, Model], settings: Settings, group: dist.ProcessGroup) -> list[str]:
    """Lets each model take a step of each kind with the same batch: what differs from the smallest (collective).

    Compared are this rank's output and, after the update, the rows of its ids, which also depend on other ranks.
    """
    differences = []
    for kind in get_args(Kind):
        batch = draw(kind, settings, dist.get_rank(group), 0)
        found = {}
        for num_embeddings, model in models.items():
            output, _ = model.step(kind, "same", batch)
            with torch.no_grad():
                found[num_embeddings] = (output, model.table(batch.ids), model.bias(batch.ids))
        expected = found[settings.smallest]
        for num_embeddings, results in found.items():
            names = zip(("output", "updated rows", "updated bias"), expected, results, strict=True)
            differences += [f"{kind}: {name} at {num_embeddings:,} rows" for name, a, b in names if not a.equal(b)]
    return differences
