"""Optimizers on shards do what they do on whole tables, and touch no other row."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

from dist_s2s.sharded import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_ids, random_rows
from tests.sharded.reference_optim import RULES, Case

V, D, STEPS = 131, 5, 6
CASES = [case for rule in RULES for case in (Case(rule), Case(rule, weight_decay=0.2, dense_steps=(1, 3, 4)))]
SPARSE = [Case(rule, weight_decay) for rule in RULES for weight_decay in (0.0, 0.2)]


def batches(world_size: int) -> list[list[Tensor]]:
    """Ids by step and rank. Rows come and go, one rank has nothing in step 2 and no rank in steps 3 and 5."""
    steps = [[random_ids(V - 30, (6, 3), seed=10 * step + rank) for rank in range(world_size)] for step in range(STEPS)]
    steps[2][-1] = steps[2][-1][:0]
    for step in (3, 5):
        steps[step] = [ids[:0] for ids in steps[step]]
    return steps


def loss_of(rows: Tensor) -> Tensor:
    """Not linear, so that an error in one step shows in the next gradient."""
    return (rows * random_rows(tuple(rows.shape), seed=0) + rows.square()).sum()


def bits(weight: Tensor) -> Tensor:
    """A copy of the bits, for which 0.0 and -0.0 are different."""
    return weight.detach().view(torch.int64).clone()


def train(group: dist.ProcessGroup, layout: str, steps: list[list[Tensor]], cases: list[Case]) -> list[list[Tensor]]:
    """For each case the shard before the first step and after every step."""
    histories = []
    for case in cases:
        table = DistributedEmbedding(V, D, layout=layout, dtype=torch.float64, process_group=group, seed=1)
        with torch.no_grad():
            table.weight[:, 0] = -0.0  # adding 0.0 to it changes its bits
        optimizer = case.optimizer(table.weight)
        schedule = ExponentialLR(optimizer, gamma=0.7)
        history = [table.weight.detach().clone()]
        for step, ids in enumerate(steps):
            optimizer.zero_grad()
            loss_of(table(ids[dist.get_rank(group)])).backward()
            if step in case.dense_steps:
                table.weight.grad = table.weight.grad.to_dense()
            optimizer.step()
            schedule.step()
            history.append(table.weight.detach().clone())
        histories.append(history)
    return histories


def train_unsharded(case: Case, weight: Tensor, steps: list[list[Tensor]]) -> Tensor:
    """The whole table after all steps on the batches of all ranks."""
    table = nn.Embedding(V, D, sparse=True, _weight=weight.clone())
    optimizer = case.reference(table.weight)
    schedule = ExponentialLR(optimizer, gamma=0.7)
    for step, ids in enumerate(steps):
        optimizer.zero_grad()
        sum((loss_of(table(mine)) for mine in ids), torch.zeros(())).div(len(ids)).backward()
        rows = torch.arange(V) if step in case.dense_steps else torch.cat([mine.flatten() for mine in ids]).unique()
        # Rows of a dense gradient that nobody looked up are in a sparse gradient for torch, with zeros.
        gradient = table.weight.grad.to_dense()[rows]
        table.weight.grad = torch.sparse_coo_tensor(rows[None], gradient, (V, D), check_invariants=True)
        with torch.no_grad():
            table.weight[rows] *= 1 - schedule.get_last_lr()[0] * case.weight_decay
        with torch.sparse.check_sparse_tensor_invariants():  # torch warns unless told to check or not
            optimizer.step()
        schedule.step()
    return table.weight.detach()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_six_steps_equal_the_unsharded_table(ranks: RankPool, world_size: int, layout: str):
    steps = batches(world_size)
    results = ranks.run(train, layout, steps, CASES, world_size=world_size)
    for case, shards in zip(CASES, zip(*results, strict=True), strict=True):
        first, last = (assemble([history[at] for history in shards], layout) for at in (0, -1))
        expected = train_unsharded(case, first, steps)
        assert (expected - first).abs().max() > 0.1
        torch.testing.assert_close(last, expected, rtol=0, atol=1e-9, msg=lambda m, c=case: f"{c}: {m}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_no_rank_has_seen_keep_every_bit(ranks: RankPool, layout: str):
    steps = batches(3)
    results = ranks.run(train, layout, steps, SPARSE, world_size=3)
    for case, shards in zip(SPARSE, zip(*results, strict=True), strict=True):
        history = [assemble(parts, layout) for parts in zip(*shards, strict=True)]
        for step, ids in enumerate(steps):
            changed = (bits(history[step]) != bits(history[step + 1])).any(1)
            seen = torch.cat([mine.flatten() for mine in ids]).unique()
            assert torch.equal(changed.nonzero()[:, 0], seen), (case, step)


def accumulate(group: dist.ProcessGroup, ids: list[Tensor], num_micro_batches: int) -> list[Tensor]:
    """Each case's shard after two steps, each with so many backwards, of which the last have no ids on some ranks."""
    shards = []
    for case in SPARSE:
        table = DistributedEmbedding(V, D, dtype=torch.float64, process_group=group, seed=1)
        optimizer = case.optimizer(table.weight)
        for _ in range(2):
            optimizer.zero_grad()
            for part in ids[dist.get_rank(group)].tensor_split(num_micro_batches):
                rows = table(part)
                (rows.square() + rows).sum().backward()
            optimizer.step()
        shards.append(table.weight.detach())
    return shards


def test_micro_batches_add_up_to_one_batch(ranks: RankPool):
    ids = [random_ids(V, (size,), seed=size) for size in (40, 3, 0)]
    whole, parts = (ranks.run(accumulate, ids, number, world_size=3) for number in (1, 5))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)


def train_tiny(group: dist.ProcessGroup, dense: bool) -> list[tuple[int, bool]]:
    """Rows of each case's shard after two steps on a table with fewer rows than ranks, and whether they are finite."""
    found = []
    for case in SPARSE:
        table = DistributedEmbedding(2, D, process_group=group)
        optimizer = case.optimizer(table.weight)
        for _ in range(2):
            table(torch.tensor([1])).sum().backward()
            if dense:
                table.weight.grad = table.weight.grad.to_dense()  # zeros for row 0
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        found.append((len(table.weight), bool(table.weight.isfinite().all())))
    return found


@pytest.mark.parametrize("dense", [False, True])
def test_optimizers_accept_a_shard_without_rows(ranks: RankPool, dense: bool):
    expected = [[(size, True)] * len(SPARSE) for size in (1, 1, 0)]
    assert ranks.run(train_tiny, dense, world_size=3) == expected
