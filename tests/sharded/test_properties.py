"""Any tables, ids, transport and number of ranks: rows, gradients and updates are those of the unsharded tables.

Every buffer that something is received into is poisoned before, so what no peer has written would be seen.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding, lookup, make_plan
from dist_s2s.sharded.transport.collective import FIRST_BYTES
from tests.rank_pool import RankPool
from tests.sharded.collectives import first_messages_of, poisoned_buffers
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_rows
from tests.sharded.reference_optim import RULES
from tests.sharded.reference_optim import Case as OptimizerCase

STEPS = 3


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

    def build(self, group: dist.ProcessGroup, seed: int, **settings: Any) -> DistributedEmbedding:
        return DistributedEmbedding(
            self.num_rows,
            self.dim,
            self.padding_idx,
            layout=self.layout,
            grad_reduction=self.grad_reduction,
            process_group=group,
            seed=seed,
            dtype=torch.float64,
            **settings,
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


def train(
    group: dist.ProcessGroup, cases: list[TableCase], rule: str, planned: bool, room: int, settings: dict[str, Any]
) -> History:
    tables = [case.build(group, seed, **settings) for seed, case in enumerate(cases)]
    optimizers = [OptimizerCase(rule).optimizer(table.weight) for table in tables]
    history = []
    with poisoned_buffers(), first_messages_of(room):
        for step in range(STEPS):
            ids = [case.ids(step)[dist.get_rank(group)] for case in cases]
            before = [table.weight.detach().clone() for table in tables]
            rows = lookup(tables, ids, make_plan(tables, ids) if planned else None)
            for optimizer in optimizers:
                optimizer.zero_grad()
            torch.stack([loss_of(block) for block in rows]).sum().backward()
            gradients = [table.weight.grad for table in tables]
            for optimizer in optimizers:
                optimizer.step()
            history.append(list(zip(before, [block.detach() for block in rows], gradients, strict=True)))
    return history, [table.weight.detach() for table in tables]


def compare(case: TableCase, rule: str, of_steps: list[list[tuple[Tensor, Tensor, Tensor]]], end: list[Tensor]) -> None:
    """of_steps: by step and rank. end: the shards, by rank."""
    scale = len(end) if case.grad_reduction == "mean" else 1
    start = assemble([shard for shard, *_ in of_steps[0]], case.layout)
    whole = nn.Embedding(case.num_rows, case.dim, case.padding_idx, sparse=True, _weight=start)
    optimizer = OptimizerCase(rule).reference(whole.weight)
    for step, of_ranks in enumerate(of_steps):
        shards, rows, gradients = zip(*of_ranks, strict=True)
        before = nn.Embedding(case.num_rows, case.dim, case.padding_idx, _weight=assemble(shards, case.layout))
        optimizer.zero_grad()
        for ids, block in zip(case.ids(step), rows, strict=True):
            assert torch.equal(block, before(ids))
            block = whole(ids.flatten()).view(block.shape)  # a sparse nn.Embedding cannot pad a scalar id
            (loss_of(block) / scale).backward()
        expected = whole.weight.grad.coalesce()
        gradient = assemble([of_shard.to_dense() for of_shard in gradients], case.layout)
        torch.testing.assert_close(gradient, expected.to_dense(), rtol=0, atol=1e-9)
        has_row = [torch.zeros(len(g)).index_fill(0, g.indices()[0], 1) for g in gradients]
        assert torch.equal(assemble(has_row, case.layout).nonzero()[:, 0], expected.indices()[0])
        with torch.sparse.check_sparse_tensor_invariants():  # torch warns unless told to check or not
            optimizer.step()
    torch.testing.assert_close(assemble(end, case.layout), whole.weight.detach(), rtol=0, atol=1e-9)


def check_tables(ranks: RankPool, world_size: int, data: st.DataObject) -> None:
    cases = data.draw(st.lists(table_cases(world_size), min_size=1, max_size=2))
    rule, planned = data.draw(st.sampled_from(sorted(RULES))), data.draw(st.booleans())
    room = data.draw(st.sampled_from([32, 256, FIRST_BYTES]))  # bytes of first messages
    settings = {"transport": data.draw(st.sampled_from(TRANSPORTS)), "deduplicate": data.draw(st.booleans())}
    histories, ends = zip(*ranks.run(train, cases, rule, planned, room, settings, world_size=world_size), strict=True)
    for number, case in enumerate(cases):
        of_steps = [[history[step][number] for history in histories] for step in range(STEPS)]
        compare(case, rule, of_steps, [end[number] for end in ends])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@settings(max_examples=30)
@given(data=st.data())
def test_sharded_tables_learn_as_whole_ones(ranks: RankPool, world_size: int, data: st.DataObject):
    check_tables(ranks, world_size, data)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@settings(max_examples=200)
@given(data=st.data())
def test_many_more_tables(ranks: RankPool, world_size: int, data: st.DataObject):
    check_tables(ranks, world_size, data)
