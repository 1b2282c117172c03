"""Any tables, any ids, any number of ranks: rows, gradients and updates are those of the unsharded tables.

Every buffer that something is received into is poisoned before, so what no peer has written would be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from dist_s2s.sharded import DistributedEmbedding, lookup, make_plan
from dist_s2s.sharded.optim import RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD
from tests.rank_pool import RankPool
from tests.sharded.collectives import poisoned_buffers
from tests.sharded.reference import LAYOUTS, assemble, random_rows

STEPS = 3
OPTIMIZERS: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "SparseSGD": partial(SparseSGD, lr=0.5, momentum=0.9),
    "SparseAdagrad": partial(SparseAdagrad, lr=0.3, eps=1e-3),
    "RowWiseAdagrad": partial(RowWiseAdagrad, lr=0.3, eps=1e-3),
    "SparseAdam": partial(SparseAdam, lr=0.1, eps=1e-3),
    "RowWiseAdam": partial(RowWiseAdam, lr=0.1, eps=1e-3),
}


@dataclass(frozen=True)
class BatchCase:
    """The ids of one rank: in each step of the same kind and shape, but others."""

    kind: str
    shape: tuple[int, ...]
    seed: int

    def ids(self, step: int, num_rows: int, padding_idx: int | None) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + step)
        uniform = torch.rand(self.shape, generator=generator, dtype=torch.float64)
        match self.kind:
            case "padding" if padding_idx is not None:
                return torch.full(self.shape, padding_idx % num_rows)
            case "same":
                return torch.full(self.shape, (self.seed + step) % num_rows)
            case "skewed":  # P(id) ~ 1 / (id + 1), as words are
                return ((num_rows + 1) ** uniform - 1).long().clamp(max=num_rows - 1)
            case "none":
                return torch.zeros((*self.shape, 0), dtype=torch.int64)
        return (uniform * num_rows).long()


@dataclass(frozen=True)
class TableCase:
    """batches: by rank."""

    num_rows: int
    dim: int
    padding_idx: int | None
    layout: str
    grad_reduction: str
    batches: list[BatchCase]

    def ids(self, step: int) -> list[Tensor]:
        """By rank."""
        return [batch.ids(step, self.num_rows, self.padding_idx) for batch in self.batches]

    def build(self, group: dist.ProcessGroup, seed: int) -> DistributedEmbedding:
        return DistributedEmbedding(
            self.num_rows,
            self.dim,
            self.padding_idx,
            layout=self.layout,
            grad_reduction=self.grad_reduction,
            process_group=group,
            seed=seed,
            dtype=torch.float64,
        )


def table_cases(world_size: int) -> st.SearchStrategy[TableCase]:
    def with_rows(num_rows: int) -> st.SearchStrategy[TableCase]:
        return st.builds(
            TableCase,
            num_rows=st.just(num_rows),
            dim=st.integers(1, 9),
            padding_idx=st.none() | st.integers(-num_rows, num_rows - 1),
            layout=st.sampled_from(LAYOUTS),
            grad_reduction=st.sampled_from(["mean", "sum"]),
            batches=st.lists(batches, min_size=world_size, max_size=world_size),
        )

    batches = st.builds(
        BatchCase,
        kind=st.sampled_from(["even", "skewed", "same", "padding", "none"]),
        shape=st.lists(st.integers(0, 6), max_size=3).map(tuple),
        seed=st.integers(0, 10**6),
    )
    return (st.integers(1, 5) | st.integers(1, 500)).flatmap(with_rows)


def loss_of(rows: Tensor) -> Tensor:
    """Not linear, so that what goes wrong in one step shows in the next gradient."""
    return (rows * random_rows(tuple(rows.shape), seed=0)).sum() + rows.square().sum()


# For each step and table: the shard before it, this rank's rows, and the shard's gradient; then the shards at the end.
History = tuple[list[list[tuple[Tensor, Tensor, Tensor]]], list[Tensor]]


def train(group: dist.ProcessGroup, cases: list[TableCase], optimizer_name: str, planned: bool) -> History:
    tables = [case.build(group, seed) for seed, case in enumerate(cases)]
    optimizer = OPTIMIZERS[optimizer_name]([table.weight for table in tables])
    history = []
    with poisoned_buffers():
        for step in range(STEPS):
            ids = [case.ids(step)[dist.get_rank(group)] for case in cases]
            before = [table.weight.detach().clone() for table in tables]
            rows = lookup(tables, ids, make_plan(tables, ids) if planned else None)
            optimizer.zero_grad()
            torch.stack([loss_of(block) for block in rows]).sum().backward()
            gradients = [table.weight.grad.clone() for table in tables]
            optimizer.step()
            history.append(list(zip(before, [block.detach() for block in rows], gradients, strict=True)))
    return history, [table.weight.detach() for table in tables]


class Formula:
    """An optimizer in its textbook form, on the rows that are used."""

    def __init__(self, name: str, weight: Tensor) -> None:
        self.name, self.weight, self.step_number = name, weight, 0
        self.first, self.second = torch.zeros_like(weight), torch.zeros_like(weight)

    def step(self, gradient: Tensor, used: Tensor) -> None:
        """used: bool [V]."""
        self.step_number += 1
        g, first, second, t = gradient[used], self.first[used], self.second[used], self.step_number
        square = g**2
        if self.name.startswith("RowWise"):
            square = square.mean(1, keepdim=True).expand_as(g)
        if self.name == "SparseSGD":
            first = 0.9 * first + g
            change = 0.5 * first
        elif self.name.endswith("Adagrad"):
            second = second + square
            change = 0.3 * g / (second.sqrt() + 1e-3)
        else:
            first = 0.9 * first + 0.1 * g
            second = 0.999 * second + 0.001 * square
            change = 0.1 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * first / (second.sqrt() + 1e-3)
        self.first[used], self.second[used] = first, second
        self.weight[used] -= change


def compare(case: TableCase, optimizer_name: str, of_steps: list[list[tuple[Tensor, ...]]], end: list[Tensor]) -> None:
    """of_steps: by step and rank. end: the shards, by rank."""
    scale = len(end) if case.grad_reduction == "mean" else 1
    formula = None
    for step, of_ranks in enumerate(of_steps):
        shards, rows, gradients = zip(*of_ranks, strict=True)
        weight = assemble(shards, case.layout)
        reference = nn.Embedding(case.num_rows, case.dim, case.padding_idx, _weight=weight.clone())
        formula = formula or Formula(optimizer_name, weight.clone())
        used = torch.zeros(case.num_rows, dtype=torch.bool)
        for mine, block in zip(case.ids(step), rows, strict=True):
            expected = reference(mine)
            assert torch.equal(block, expected)
            (loss_of(expected) / scale).backward()
            used[mine.flatten()] = True
        if case.padding_idx is not None:
            used[case.padding_idx] = False
        assert reference.weight.grad is not None
        whole = assemble([gradient.to_dense() for gradient in gradients], case.layout)
        torch.testing.assert_close(whole, reference.weight.grad, rtol=0, atol=1e-9)
        has_row = [torch.zeros(len(gradient)).index_fill(0, gradient.indices()[0], 1) for gradient in gradients]
        assert torch.equal(assemble(has_row, case.layout).bool(), used)
        formula.step(reference.weight.grad, used)
    assert formula is not None
    torch.testing.assert_close(assemble(end, case.layout), formula.weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@settings(max_examples=60)
@given(data=st.data())
def test_sharded_tables_learn_as_whole_ones(ranks: RankPool, world_size: int, data: st.DataObject):
    cases = data.draw(st.lists(table_cases(world_size), min_size=1, max_size=2))
    optimizer_name = data.draw(st.sampled_from(sorted(OPTIMIZERS)))
    planned = data.draw(st.booleans())
    histories, ends = zip(*ranks.run(train, cases, optimizer_name, planned, world_size=world_size), strict=True)
    for number, case in enumerate(cases):
        of_steps = [[history[step][number] for history in histories] for step in range(STEPS)]
        compare(case, optimizer_name, of_steps, [end[number] for end in ends])
