"""An optimizer's state of a table is never taken for that of another number of rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from dist_s2s.sharded import CheckpointState, DistributedEmbedding, DistributedRows, RowWiseAdagrad, SparseAdam
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS

V, D = 16, 2
KINDS: list[type[Optimizer]] = [SparseAdam, RowWiseAdagrad, torch.optim.SparseAdam, torch.optim.Adagrad]


def step(table: DistributedEmbedding, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    table(torch.arange(0, table.num_embeddings, 3)).square().sum().backward()
    optimizer.step()


def state_of_rows(kind: type[Optimizer], rows: int) -> dict[str, Any]:
    """As a rank's file of an earlier version has it: plain tensors of that rank's rows."""
    weight = nn.Parameter(torch.ones(rows, D))
    optimizer = kind([weight])
    indices = torch.arange(rows)[None]
    weight.grad = torch.sparse_coo_tensor(indices, torch.ones(rows, D), (rows, D), check_invariants=True).coalesce()
    optimizer.step()
    return optimizer.state_dict()


def load_wrong(group: dist.ProcessGroup, kind: type[Optimizer], rows: int, layout: str) -> str:
    table = DistributedEmbedding(V, D, process_group=group, layout=layout)
    before, optimizer = table.weight.detach().clone(), kind([table.weight])
    if kind in (SparseAdam, RowWiseAdagrad):
        with pytest.raises(ValueError, match="size mismatch") as error:
            optimizer.load_state_dict(state_of_rows(kind, rows))
    else:  # torch's is checked before its first step
        optimizer.load_state_dict(state_of_rows(kind, rows))
        with pytest.raises(ValueError, match="size mismatch") as error:
            step(table, optimizer)
    assert torch.equal(table.weight, before)
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_state_of_another_number_of_rows_is_refused_on_every_rank(ranks: RankPool, kind: type[Optimizer], layout: str):
    for world_size, rows in ((4, 8), (1, 8), (2, 17)):
        for rank, message in enumerate(ranks.run(load_wrong, kind, rows, layout, world_size=world_size)):
            theirs = f"of parameter 0: the state_dict holds a tensor of shape [{rows}"
            assert theirs in message
            own = f"{V // world_size} of 16 rows ({layout}, rank {rank} of {world_size})"
            assert f"but this shard has {own}, of width 2;" in message


def load_right(group: dist.ProcessGroup, kind: type[Optimizer]) -> list[bool]:
    """Whether state of all rows by id is taken, and that of the own rows, by optimizers with and without a step."""
    answers = []
    for layout in LAYOUTS:
        table = DistributedEmbedding(V, D, process_group=group, layout=layout)
        whole, ids = state_of_rows(kind, V), table.partition.ids(table.rank)
        values = {key: value for key, value in whole["state"][0].items() if isinstance(value, torch.Tensor)}
        rows = {key: value.copy_(torch.rand(value.shape)) for key, value in values.items() if value.dim() > 0}
        table(torch.arange(0)).sum().backward()  # a gradient without rows, so that a step changes none
        first, fresh = kind([table.weight]), kind([table.weight])
        for _ in range(2):
            first.load_state_dict(whole)
            first.step()
        fresh.load_state_dict(first.state_dict())
        fresh.step()
        for optimizer in (first, fresh):
            own = optimizer.state[table.weight]
            answers += [torch.equal(own[key], value[ids].to(own[key])) for key, value in rows.items()]
    return answers


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_the_own_rows_and_of_all_rows_is_taken(ranks: RankPool, kind: type[Optimizer]):
    for answers in ranks.run(load_right, kind, world_size=3):
        assert answers
        assert all(answers)


def save_own_file(group: dist.ProcessGroup, folder: str, kind: type[Optimizer], layout: str) -> None:
    table = DistributedEmbedding(V + 1, D, process_group=group, layout=layout)
    optimizer = kind([table.weight])
    step(table, optimizer)
    torch.save([optimizer.state_dict(), table.weight], f"{folder}/{table.rank}.pt")
    again = kind([table.weight])
    again.load_state_dict(torch.load(f"{folder}/{table.rank}.pt")[0])
    for one in (optimizer, again):
        one.step()  # so that torch's is checked
    assert optimizer.state[table.weight].keys() == again.state[table.weight].keys()
    for key, value in optimizer.state[table.weight].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(again.state[table.weight][key]))


def load_others_file(group: dist.ProcessGroup, folder: str, kind: type[Optimizer], layout: str) -> str:
    table = DistributedEmbedding(V + 1, D, process_group=group, layout=layout)
    optimizer, rank = kind([table.weight]), 1 - min(table.rank, 1)
    step(table, optimizer)  # so that torch's is checked when it loads
    with pytest.raises(ValueError, match="size mismatch") as error:
        optimizer.load_state_dict(torch.load(f"{folder}/{rank}.pt")[0])
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_a_ranks_own_state_says_whose_it_is(
    ranks: RankPool, tmp_path: Path, kind: type[Optimizer], layout: str
):
    ranks.run(save_own_file, str(tmp_path), kind, layout, world_size=2)
    for world_size in (2, 4):
        for rank, message in enumerate(ranks.run(load_others_file, str(tmp_path), kind, layout, world_size=world_size)):
            owner, own_rows = 1 - min(rank, 1), (V + 1 - rank + world_size - 1) // world_size
            theirs = f"{9 - owner} of 17 rows ({layout}, rank {owner} of 2)"
            own = f"{own_rows} of 17 rows ({layout}, rank {rank} of {world_size})"
            assert f"the state_dict holds {theirs}, but this shard has {own}, of width 2;" in message


def shown(group: dist.ProcessGroup, kind: type[Optimizer]) -> list[bool]:
    table, dense = DistributedEmbedding(V, D, process_group=group), nn.Parameter(torch.ones(2, 2))
    optimizer, other = kind([table.weight]), kind([dense])
    step(table, optimizer)
    dense.grad = torch.sparse_coo_tensor([[0]], [[1.0, 2.0]], (2, 2), check_invariants=True).coalesce()
    other.step()
    return [
        any(isinstance(value, DistributedRows) for value in one.state_dict()["state"][0].values())
        for one in (optimizer, other)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_state_of_a_sharded_table_is_shown_as_sharded(ranks: RankPool, kind: type[Optimizer]):
    assert ranks.run(shown, kind, world_size=2) == [[True, False]] * 2
    assert ranks.run(shown, kind, world_size=1) == [[False, False]]


def test_a_table_of_a_single_rank_takes_optimizers_whose_state_is_no_rows():
    states = []
    for seed in range(2):
        table = DistributedEmbedding(V, D, seed=seed)
        optimizer = torch.optim.Adafactor([table.weight])
        checkpoint = CheckpointState(table, optimizer)
        if seed == 0:
            table.weight.square().sum().backward()
            optimizer.step()
        else:
            checkpoint.load_state_dict(states[0])
            optimizer.load_state_dict(optimizer.state_dict())
        states.append(checkpoint.state_dict())
    first, second = (state["optimizers"]["0"]["state"]["weight"] for state in states)
    assert first["col_var"].shape == (1, D)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
