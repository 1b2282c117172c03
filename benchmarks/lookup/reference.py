"""What two steps of training must give, computed by each rank alone in float64, and how far a contender is from it."""

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from lookup.problem import EPS, LEARNING_RATE, Contender, Problem, Update, draw_batch, first_rows

STEPS = 2  # the second finds out whether the optimizer's state was kept


@dataclass(frozen=True)
class Expected:
    """``looked_up``: outputs of this rank's ids in each step. ``trained``: of the first step's of all ranks, after."""

    looked_up: list[Tensor]
    ids: Tensor
    trained: Tensor


def expect(problem: Problem, update: Update, group: dist.ProcessGroup) -> Expected:
    """Return what the first steps must give if the gradients of all ranks are averaged: on the CPU (not collective)."""
    problem = replace(problem, device="cpu")
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    steps = [[draw_batch(problem, peer, number) for peer in range(world_size)] for number in range(STEPS)]
    distinct = torch.cat([batch.ids for step in steps for batch in step]).unique()
    rows = first_rows(distinct, problem.embedding_dim).double()
    total = rows.new_zeros(len(rows), 1)  # of the mean squares, for RowWiseAdagrad
    looked_up = []
    for step in steps:
        looked_up.append(problem.pool(rows[torch.searchsorted(distinct, step[rank].ids)]))
        gradient = torch.zeros_like(rows)
        for batch in step:
            of_ids = batch.gradient.double().repeat_interleave(problem.ids_per_bag, 0)
            gradient.index_add_(0, torch.searchsorted(distinct, batch.ids), of_ids / world_size)
        if update == "RowWiseAdagrad":
            total += gradient.square().mean(1, keepdim=True)
            gradient /= total.sqrt() + EPS
        rows -= LEARNING_RATE * gradient
    ids = torch.cat([batch.ids for batch in steps[0]])
    return Expected(looked_up, ids, problem.pool(rows[torch.searchsorted(distinct, ids)]))


def difference(contender: Contender, expected: Expected, problem: Problem, group: dist.ProcessGroup) -> float:
    """Return how far the contender's rows are off after the same steps, relative to a row's largest value (collective).

    Rows of small values count as if their largest was 1, as initial rows have it.
    """
    found = [contender.step(draw_batch(problem, dist.get_rank(group), number)) for number in range(STEPS)]
    with torch.no_grad():
        found.append(contender.lookup(contender.prepare(expected.ids.to(problem.device))))
    wrong = [_distance(*pair) for pair in zip(found, [*expected.looked_up, expected.trained], strict=True)]
    return float(torch.stack(wrong).max())  # nan if any is


def _distance(rows: Tensor, expected: Tensor) -> Tensor:
    size = expected.abs().amax(1, keepdim=True).clamp_(min=1)
    return ((rows.cpu().double() - expected) / size).abs().max()
