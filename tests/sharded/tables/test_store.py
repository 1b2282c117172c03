"""Rows that ranks read in place are read in place again after a table has left the memory that the ranks share."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, lookup
from dist_s2s.sharded.transport.shared_memory import rows as shared_rows
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids

V, D = 131, 5
SAYS_SO = "rows read in place"
pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="ranks share memory on Linux alone")


def new_table(group: dist.ProcessGroup | None, seed: int = 0, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, process_group=group, seed=seed, **{"dtype": torch.float64, **settings})


def grow(table: DistributedEmbedding) -> DistributedEmbedding:
    table.grow(V + 9)
    return table


def assign(table: DistributedEmbedding) -> DistributedEmbedding:
    table.weight = nn.Parameter(2 * table.weight.detach())
    return table


def assign_on_one_rank(table: DistributedEmbedding) -> DistributedEmbedding:
    return assign(table) if table.rank == 1 else table


def move(table: DistributedEmbedding) -> DistributedEmbedding:
    table.weight.data = table.weight.data.clone()
    return table


def load_with_assign(table: DistributedEmbedding) -> DistributedEmbedding:
    state = {name: 2 * value if name == "weight" else value for name, value in table.state_dict().items()}
    table.load_state_dict(state, assign=True)
    return table


CHANGES: dict[str, Callable[[DistributedEmbedding], DistributedEmbedding]] = {
    "grown": grow,
    "copied": copy.deepcopy,
    "converted": lambda table: table.to(torch.bfloat16),
    "converted back": lambda table: table.to(torch.float32).to(torch.float64),
    "assigned": assign,
    "assigned on one rank": assign_on_one_rank,
    "loaded with assign": load_with_assign,
    "moved": move,
}


def change_and_train(
    group: dist.ProcessGroup, kind: str, transport: str, layout: str, settings: dict[str, Any]
) -> tuple[list[Tensor], list[tuple[bool, bool]], list[int]]:
    """All numbers of three steps after the change; whether rows are read in place, and print says so; meetings.

    Meetings, or all-to-alls, are those of the last lookup.
    """
    table = new_table(group, layout=layout, transport=transport, **settings)
    table(torch.arange(V)[:: 1 + dist.get_rank(group)]).sum().backward()
    states = [(table.is_in_place, SAYS_SO in repr(table))]
    table = CHANGES[kind](table)
    optimizer, numbers = RowWiseAdagrad([table.weight], lr=0.5), []
    for step in range(3):
        optimizer.zero_grad()
        before = table.statistics.collectives
        rows = table(random_ids(table.num_embeddings, (9, 2), seed=10 * step + dist.get_rank(group)))
        collectives = table.statistics.collectives - before
        states.append((table.is_in_place, SAYS_SO in repr(table)))
        rows.sin().sum().backward()
        numbers += [rows.detach(), table.weight.grad.to_dense()]
        optimizer.step()
    return [*numbers, table.weight.detach().clone()], states, [collectives]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_table_that_was_changed_is_read_in_place_again(ranks: RankPool, kind: str, world_size: int):
    layout = LAYOUTS[world_size % 2]
    in_place, by_collectives = (
        ranks.run(change_and_train, kind, transport, layout, {}, world_size=world_size)
        for transport in ("shared_memory", "collective")
    )
    for (numbers, states, meetings), (expected, others, all_to_alls) in zip(in_place, by_collectives, strict=True):
        assert all(map(torch.equal, numbers, expected))
        assert states == [(True, True)] * 4
        assert others == [(False, False)] * 4
        assert (meetings, all_to_alls) == ([2], [2])


@pytest.mark.parametrize("kind", CHANGES)
def test_a_table_with_max_norm_is_changed_too_but_not_read_in_place(ranks: RankPool, kind: str):
    """Its rows are scaled by their owners when they are asked for."""
    settings = {"max_norm": 1.0, "padding_idx": 3}
    by_mailboxes, by_collectives = (
        ranks.run(change_and_train, kind, transport, LAYOUTS[0], settings, world_size=2)
        for transport in ("shared_memory", "collective")
    )
    for (numbers, states, _), (expected, _, _) in zip(by_mailboxes, by_collectives, strict=True):
        assert all(map(torch.equal, numbers, expected))
        assert not any(says_so for _, says_so in states)
        rows = numbers[0].float()
        assert 0 < rows.norm(dim=-1).max() <= 1.01


def change_without_memory(group: dist.ProcessGroup, kind: str, culprit: int) -> tuple[list[bool], Tensor, Tensor]:
    """What print says before and after a change that finds no memory to share, and rows and shard then."""
    table = new_table(group)
    says_so = [SAYS_SO in repr(table)]
    function = "make_memory" if culprit == 0 else "check_memory"
    fails = patch.object(shared_rows, function, side_effect=OSError("no memory"))
    with fails if dist.get_rank(group) == culprit else nullcontext():
        table = CHANGES[kind](table)
        rows = table(torch.arange(V))
    says_so.append(SAYS_SO in repr(table))
    assert not table.is_in_place
    rows.sum().backward()
    assert len(table.weight.grad.coalesce().values()) == len(table.weight)
    return says_so, rows.detach(), table.weight.detach().clone()


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("kind", ["converted", "assigned on one rank", "copied"])
def test_print_no_longer_says_so_where_there_is_no_memory_to_share(ranks: RankPool, kind: str, culprit: int):
    results = ranks.run(change_without_memory, kind, culprit, world_size=2)
    says_so, rows, shards = zip(*results, strict=True)
    assert says_so == ([True, False],) * 2
    assert all(torch.equal(mine, assemble(shards, LAYOUTS[0])) for mine in rows)


def validate_first(group: dist.ProcessGroup) -> tuple[bool, Tensor]:
    """A table is converted, looked up without gradients, and then its weight is used by torch's own functions."""
    table = new_table(group).to(torch.float32)
    with torch.inference_mode():
        table(torch.arange(V))
    (table.weight * table.weight).sum().backward()
    return table.is_in_place and not table.weight.is_inference(), table.weight.grad - 2 * table.weight.detach()


def test_memory_that_is_shared_again_in_inference_mode_can_be_trained(ranks: RankPool):
    for is_usual, difference in ranks.run(validate_first, world_size=2):
        assert is_usual
        assert not difference.any()


def tie(group: dist.ProcessGroup, transport: str) -> tuple[list[Tensor], list[bool]]:
    """Rows of two tables in each of three steps, of which the first has the second's weight."""
    first, second = (new_table(group, seed, transport=transport) for seed in range(2))
    memory = second.weight.data_ptr()
    first.weight = second.weight
    optimizer, numbers = RowWiseAdagrad([second.weight], lr=0.5), []
    for step in range(3):
        ids = [random_ids(V, (7,), seed=10 * step + 2 * dist.get_rank(group) + table) for table in range(2)]
        rows = [first(ids[0]), second(ids[1])] if step != 1 else lookup([first, second], ids)
        sum(block.sin().sum() for block in rows).backward()
        numbers += [block.detach() for block in rows]
        optimizer.step()
        optimizer.zero_grad()
    assert first.weight is second.weight
    return [*numbers, second.weight.detach().clone()], [
        second.weight.data_ptr() == memory,
        first.is_in_place,
        second.is_in_place,
    ]


def test_a_table_with_the_weight_of_another_leaves_it_where_it_is(ranks: RankPool):
    shared, by_collectives = (ranks.run(tie, transport, world_size=3) for transport in ("shared_memory", "collective"))
    for (numbers, states), (expected, _) in zip(shared, by_collectives, strict=True):
        assert all(map(torch.equal, numbers, expected))
        assert states == [True, False, True]
    whole = new_table(None, seed=1).weight.detach()
    for rank, (numbers, _) in enumerate(shared):  # of the first step, before any update
        ids = [random_ids(V, (7,), seed=2 * rank + table) for table in range(2)]
        assert all(torch.equal(rows, whole[mine]) for rows, mine in zip(numbers[:2], ids, strict=True))
