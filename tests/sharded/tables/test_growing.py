"""A table grows, and rows begin anew, together with their optimizer's state."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Adagrad, Optimizer, SparseAdam

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_ids, random_rows

D, PADDING, SEED = 5, 1, 11
SIZES = [2, 7, 7, 131, 140]  # of the table in each step: with 2 rows some of 3 ranks own none
OPTIMIZERS: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "SparseAdam": partial(SparseAdam, lr=0.1),
    "Adagrad": partial(Adagrad, lr=0.3),
    "RowWiseAdagrad": partial(RowWiseAdagrad, lr=0.3, eps=0.1),
}


def initial_rows(num_rows: int) -> Tensor:
    """What a fresh table of this size begins with."""
    return DistributedEmbedding(num_rows, D, PADDING, dtype=torch.float64, seed=SEED).weight.detach()


def batches(sizes: list[int], world_size: int) -> list[list[Tensor]]:
    """Ids by step and rank; the last rank has none in step 1."""
    steps = [
        [random_ids(size, (6, 3), 10 * step + rank) for rank in range(world_size)] for step, size in enumerate(sizes)
    ]
    steps[1][-1] = steps[1][-1][:0]
    return steps


def loss_of(rows: Tensor) -> Tensor:
    return (rows * random_rows(tuple(rows.shape), seed=0) + rows.square()).sum()


def row_state(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    return {
        name: value.clone()
        for name, value in optimizer.state[weight].items()
        if isinstance(value, Tensor) and value.dim() > 0
    }


def snapshot(table: Any, optimizer: Optimizer) -> dict[str, Tensor]:
    """The shard and all that the optimizer keeps of its rows."""
    return {"weight": table.weight.detach().clone(), **row_state(optimizer, table.weight)}


def new_table(group: dist.ProcessGroup, layout: str, num_rows: int) -> DistributedEmbedding:
    return DistributedEmbedding(
        num_rows, D, PADDING, layout=layout, dtype=torch.float64, process_group=group, seed=SEED
    )


def grow_and_train(
    group: dist.ProcessGroup, layout: str, steps: list[list[Tensor]]
) -> dict[str, list[dict[str, Tensor]]]:
    """For each optimizer the snapshots before and after growing, and after the step, for each step."""
    history: dict[str, list[dict[str, Tensor]]] = {}
    for name, make_optimizer in OPTIMIZERS.items():
        table = new_table(group, layout, SIZES[0])
        optimizer = make_optimizer([table.weight])
        history[name] = []
        for size, ids in zip(SIZES, steps, strict=True):
            history[name].append(snapshot(table, optimizer))
            table.grow(size, optimizer)  # while the graph of the last step is still alive, as in any training loop
            assert (table.num_embeddings, table.weight.grad) == (size, None)
            history[name].append(snapshot(table, optimizer))
            loss = loss_of(table(ids[dist.get_rank(group)]))
            loss.backward()
            optimizer.step()
            history[name].append(snapshot(table, optimizer))
    return history


def grow_unsharded(name: str, steps: list[list[Tensor]]) -> Tensor:
    """The whole table after all steps on the batches of all ranks."""
    table = nn.Embedding(SIZES[0], D, PADDING, sparse=True, _weight=initial_rows(SIZES[0]))
    optimizer = OPTIMIZERS[name]([table.weight])
    for size, ids in zip(SIZES, steps, strict=True):
        old, added = table.weight, size - len(table.weight)
        whole = torch.cat((old.detach(), initial_rows(size)[len(old) :]))
        table = nn.Embedding(size, D, PADDING, sparse=True, _weight=whole)
        moved = {key: torch.cat((v, v.new_zeros(added, *v.shape[1:]))) for key, v in row_state(optimizer, old).items()}
        optimizer.state[table.weight] = {**optimizer.state.pop(old, {}), **moved}
        optimizer.param_groups[0]["params"] = [table.weight]
        sum((loss_of(table(mine)) for mine in ids), torch.zeros(())).div(len(ids)).backward()
        with torch.sparse.check_sparse_tensor_invariants():  # torch warns unless told to check or not
            optimizer.step()
    return table.weight.detach()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_a_growing_table_trains_as_the_unsharded_one(ranks: RankPool, world_size: int, layout: str):
    steps = batches(SIZES, world_size)
    results = ranks.run(grow_and_train, layout, steps, world_size=world_size)
    for name in OPTIMIZERS:
        history = [
            {key: assemble([snapshot[key] for snapshot in of_ranks], layout) for key in of_ranks[0]}
            for of_ranks in zip(*(result[name] for result in results), strict=True)
        ]
        for number, size in enumerate(SIZES):
            before, after = history[3 * number : 3 * number + 2]
            assert before.keys() == after.keys()
            assert number == 0 or len(before) > 1
            fresh = {key: value.new_zeros(size, *value.shape[1:]) for key, value in after.items()}
            fresh["weight"] = initial_rows(size)
            for key in after:
                old = len(before[key])
                assert torch.equal(after[key][:old].view(torch.int64), before[key].view(torch.int64)), (name, key)
                assert torch.equal(after[key][old:], fresh[key][old:]), (name, key)
        expected = grow_unsharded(name, steps)
        torch.testing.assert_close(
            history[-1]["weight"], expected, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert not expected[PADDING].any()


def grow_wrongly(group: dist.ProcessGroup) -> list[str]:
    """The messages; each time the table stays as it was."""
    rank, messages = dist.get_rank(group), []
    table = new_table(group, "contiguous", 131)
    optimizer = RowWiseAdagrad([table.weight])
    table(torch.tensor([rank])).sum().backward()
    optimizer.step()
    before = snapshot(table, optimizer)
    for size, its_optimizer in ((130, optimizer), (131 + rank, optimizer), (140, optimizer if rank == 0 else None)):
        with pytest.raises(ValueError, match=r"shrink|same") as error:
            table.grow(size, its_optimizer)
        messages.append(str(error.value))
        after = snapshot(table, optimizer)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert torch.equal(table(torch.arange(131)), table.to_embedding().weight)
    return messages


def test_ranks_that_grow_differently_all_get_the_same_error(ranks: RankPool):
    expected = [
        "a table cannot shrink: it has 131 rows, and was to get 130",
        "num_embeddings must be the same on every rank, but is 131 on rank 0 and 132 on rank 1",
        "the optimizer's state must be the same on every rank, but is ['sum'] on rank 0 and [] on rank 1",
    ]
    assert ranks.run(grow_wrongly, world_size=3) == [expected] * 3


def reset_and_train(
    group: dist.ProcessGroup, layout: str, ids: list[Tensor], steps: list[list[Tensor]]
) -> dict[str, list[dict[str, Tensor]]]:
    """For each optimizer the snapshots before and after resetting, and after one more step."""
    history, rank = {}, dist.get_rank(group)
    for name, make_optimizer in OPTIMIZERS.items():
        table = new_table(group, layout, 131)
        optimizer = make_optimizer([table.weight])
        for batch in steps[:-1]:
            optimizer.zero_grad()
            loss_of(table(batch[rank])).backward()
            optimizer.step()
        history[name] = [snapshot(table, optimizer)]
        table.reset_rows(ids[rank], optimizer)
        history[name].append(snapshot(table, optimizer))
        optimizer.zero_grad()
        loss_of(table(steps[-1][rank])).backward()
        optimizer.step()
        history[name].append(snapshot(table, optimizer))
    return history


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_begin_anew_on_whichever_rank_they_are(ranks: RankPool, layout: str):
    steps = batches([131] * 3, 3)
    every_step = torch.cat([mine.flatten() for batch in steps[:2] for mine in batch]).unique()
    ids = [every_step[::7].repeat(2), torch.empty(0, 4).int(), torch.tensor([[PADDING, 130], [0, 64]])]
    chosen = torch.cat([mine.flatten().long() for mine in ids]).unique()
    results = ranks.run(reset_and_train, layout, ids, steps, world_size=3)
    for name in OPTIMIZERS:
        before, after, trained = (
            {key: assemble([snapshot[key] for snapshot in of_ranks], layout) for key in of_ranks[0]}
            for of_ranks in zip(*(result[name] for result in results), strict=True)
        )
        assert len(after) > 1
        for key, value in after.items():
            expected = before[key].clone()
            assert expected[chosen].any()
            expected[chosen] = initial_rows(131)[chosen] if key == "weight" else 0
            assert torch.equal(value.view(torch.int64), expected.view(torch.int64)), (name, key)
        assert not after["weight"][PADDING].any()
        seen = torch.cat([mine.flatten() for mine in steps[-1]]).unique()
        changed = (trained["weight"] != after["weight"]).any(1).nonzero()[:, 0]
        assert torch.equal(changed, seen[seen != PADDING])


def reset_wrongly(group: dist.ProcessGroup) -> tuple[str, bool]:
    table = new_table(group, "round_robin", 131)
    with torch.no_grad():
        table.weight.add_(1)
    before = table.weight.detach().clone()
    with pytest.raises(IndexError) as error:
        table.reset_rows(torch.tensor([5, 131 if dist.get_rank(group) == 1 else 6]))
    return str(error.value), torch.equal(table.weight, before)


def test_one_bad_id_leaves_all_rows(ranks: RankPool):
    expected = ("id 131 at position (1,) on rank 1 is outside [0, 131)", True)
    assert ranks.run(reset_wrongly, world_size=3) == [expected] * 3


def test_a_local_table_grows_and_begins_anew():
    table = DistributedEmbedding(3, D, PADDING, dtype=torch.float64, seed=SEED)
    table.grow(6)
    assert torch.equal(table.weight, initial_rows(6))
    torch.nn.init.ones_(table.weight)
    table.reset_rows(torch.tensor(4))
    expected = torch.ones(6, D).double()
    expected[4] = initial_rows(6)[4]
    assert torch.equal(table.weight, expected)
