"""Lookahead changes when ids travel, and nothing else."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead, RowWiseAdagrad, lookup
from tests.rank_pool import RankPool
from tests.sharded.collectives import counted_collectives
from tests.sharded.reference import TRANSPORTS, random_ids, random_rows

SIZES = ((131, 5), (57, 3))
STEPS = 5
Batch = list[Tensor]


def build(group: dist.ProcessGroup | None, transport: str = "auto") -> list[DistributedEmbedding]:
    return [
        DistributedEmbedding(*size, process_group=group, seed=t, dtype=torch.float64, transport=transport)
        for t, size in enumerate(SIZES)
    ]


def batches_of(rank: int, number: int = STEPS) -> list[Batch]:
    """Ids of both tables in each step; few rows, which come again and again, and sometimes none."""
    return [
        [5 * random_ids(11, (rank + step, 1 + t), seed=100 * rank + 10 * step + t) for t in range(2)]
        for step in range(number)
    ]


def themselves(batch: Batch) -> Batch:
    return batch


def in_two_groups(function: Callable[[dist.ProcessGroup, dist.ProcessGroup], object]) -> object:
    """Calls the function in ranks {0, 1} and in {2, 3}, with two groups of just those."""
    halves = [[dist.new_group([0, 1]), dist.new_group([2, 3])] for _ in range(2)]
    mine = [of_both[dist.get_rank() // 2] for of_both in halves]
    result = function(*mine)
    for group in mine:
        dist.destroy_process_group(group)
    return result


def looked_up(tables: list[DistributedEmbedding], batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Tensor]]]:
    """What Lookahead is compared with."""
    for batch in batches:
        yield batch, lookup(tables, batch)


History = list[tuple[list[Tensor], float, list[Tensor]]]


def train(tables: list[DistributedEmbedding], steps: Iterable[tuple[Batch, list[Tensor]]]) -> History:
    """Rows, loss and gradients of every step; an update in between."""
    optimizer, history = RowWiseAdagrad([table.weight for table in tables], lr=0.5), []
    for batch, rows in steps:
        optimizer.zero_grad()
        expected_shapes = [(*ids.shape, size[1]) for ids, size in zip(batch, SIZES, strict=True)]
        assert [block.shape for block in rows] == expected_shapes
        loss = torch.stack([(block * random_rows(block.shape, 0) + block.square()).sum() for block in rows]).sum()
        loss.backward()
        gradients = [table.weight.grad.to_dense() for table in tables]
        history.append(([block.detach() for block in rows], loss.item(), gradients))
        optimizer.step()
    return history


def train_both_ways(group: dist.ProcessGroup | None, background: dist.ProcessGroup | None) -> bool:
    """Whether every number of both ways is the same to the bit."""
    rank = 0 if group is None else dist.get_rank(group)
    tables = build(group)
    ahead = train(tables, Lookahead(tables, batches_of(rank), themselves, background))
    tables = build(group)
    plain = train(tables, looked_up(tables, batches_of(rank)))
    assert len(ahead) == len(plain) == STEPS
    losses, expected_losses = ([loss for _, loss, _ in history] for history in (ahead, plain))
    numbers, expected = ([rows + gradients for rows, _, gradients in history] for history in (ahead, plain))
    return losses == expected_losses and same(numbers, expected)


def train_on_all_ranks(_: dist.ProcessGroup) -> bool:
    return train_both_ways(dist.new_group(), None)


def train_on_halves(_: dist.ProcessGroup) -> object:
    return in_two_groups(train_both_ways)


def test_rows_losses_and_gradients_are_those_of_a_lookup_in_each_step(ranks: RankPool):
    assert ranks.run(train_on_all_ranks) == [True] * 4


def test_tables_on_some_of_the_ranks(ranks: RankPool):
    assert ranks.run(train_on_halves) == [True] * 4


def test_without_a_group():
    assert train_both_ways(None, None)


def build_without_a_group_of_its_own(group: dist.ProcessGroup) -> str:
    with pytest.raises(ValueError, match="process_group") as error:
        Lookahead(build(group), batches_of(0), themselves)
    return str(error.value)


def test_tables_on_some_of_the_ranks_need_a_second_group(ranks: RankPool):
    messages = ranks.run(build_without_a_group_of_its_own, world_size=2)
    assert messages == ["the tables are not on all ranks; pass process_group, a further group of their ranks"] * 2


def count(group: dist.ProcessGroup, transport: str) -> tuple[list[tuple[Counter[str], Counter[str]]], Counter[str]]:
    """The collectives of the main thread in each step, forward and backward; those of the background in all."""
    tables, batches = build(group, transport), batches_of(dist.get_rank(group))
    steps = iter(Lookahead(tables, batches, themselves))
    in_steps = []
    with counted_collectives() as counts:
        for _ in range(STEPS):
            counts["main"].clear()
            _, rows = next(steps)
            forward = counts["main"].copy()
            counts["main"].clear()
            torch.stack([block.sum() for block in rows]).sum().backward()
            in_steps.append((forward, counts["main"].copy()))
        counts["main"].clear()
        assert next(steps, None) is None
        assert not counts["main"]
    return in_steps, counts["background"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_critical_path_of_a_step_has_few_collectives_for_both_tables(ranks: RankPool, transport: str):
    name, forward, backward, of_plan = {
        "collective": ("all_to_all_single", 2, 1, 1),  # before rows travel and the rows; so few gradients fit
        "shared_memory": ("meet", 2, 1, 1),  # before rows are read in place, and when all have read
    }[transport]
    for in_steps, in_background in ranks.run(count, transport):
        assert in_steps == [(Counter({name: forward}), Counter({name: backward}))] * STEPS
        assert in_background == {name: (1 + of_plan) * STEPS + 1}  # at the end there is nothing to plan


def statistics_of(group: dist.ProcessGroup) -> tuple[int, int]:
    """How many ids were looked up, and how many rows asked for, in both tables together."""
    tables, batches = build(group), batches_of(dist.get_rank(group))
    statistics = tables[0].statistics
    statistics.reset()
    for _ in Lookahead(tables, batches, themselves):
        pass
    assert tables[1].statistics is statistics
    return statistics.ids, statistics.distinct_ids


def test_ids_are_counted(ranks: RankPool):
    for rank, counted in enumerate(ranks.run(statistics_of)):
        ids = [of_table for batch in batches_of(rank) for of_table in batch]
        assert counted == (sum(mine.numel() for mine in ids), sum(len(mine.unique()) for mine in ids))


def plan_while_working(group: dist.ProcessGroup) -> list[int]:
    """How many batches have been begun when each step begins, once the background had time."""
    begun = 0

    def batches() -> Iterator[Batch]:
        nonlocal begun
        for batch in batches_of(dist.get_rank(group)):
            begun += 1
            yield batch

    seen = []
    for step, _ in enumerate(Lookahead(build(group), batches(), themselves), start=1):
        deadline = time.monotonic() + 10
        while begun == step < STEPS and time.monotonic() < deadline:
            time.sleep(0.001)
        seen.append(begun)
    return seen


def test_one_batch_is_made_ahead_of_the_loop_and_no_more(ranks: RankPool):
    assert ranks.run(plan_while_working) == [[2, 3, 4, 5, 5]] * 4


def same(mine: list[list[Tensor]], expected: list[list[Tensor]]) -> bool:
    return all(
        torch.equal(a, b)
        for rows, others in zip(mine, expected, strict=True)
        for a, b in zip(rows, others, strict=True)
    )


def stop_early(group: dist.ProcessGroup) -> tuple[int, bool, list[str]]:
    """Steps until a loop is left, whether the next loop begins where it stopped, and threads that remain."""
    tables, batches = build(group), batches_of(dist.get_rank(group), number=7)
    expected = [rows for _, rows in looked_up(tables, batches)]
    ahead, first = Lookahead(tables, batches, themselves), []
    for _, rows in ahead:
        first.append(rows)
        if len(first) == 3:
            break
    others = [rows for _, rows in looked_up(tables, batches)]  # the table is free for other uses
    rest = [rows for _, rows in ahead]
    threads = [thread.name for thread in threading.enumerate() if thread.name == "lookahead"]
    return len(first), same(first + rest, expected) and same(others, expected), threads


def test_a_loop_that_is_left_early_goes_on_where_it_stopped(ranks: RankPool):
    assert ranks.run(stop_early) == [(3, True, [])] * 4


def leave_early(group: dist.ProcessGroup) -> bool:
    """Whether a loop is right in the background group of one that was left while ranks still planned its next step."""
    background, rank = dist.new_group(), dist.get_rank(group)
    tables, batches = build(group), batches_of(rank)

    def slow_batches() -> Iterator[Batch]:
        for batch in batches:
            time.sleep(0.05 * rank)
            yield batch

    for _ in Lookahead(tables, slow_batches(), themselves, background):
        break
    rows = [of_step for _, of_step in Lookahead(tables, batches, themselves, background)]
    dist.destroy_process_group(background)
    return same(rows, [of_step for _, of_step in looked_up(tables, batches)])


def test_a_loop_that_is_left_early_does_not_disturb_the_next(ranks: RankPool):
    assert ranks.run(leave_early) == [True] * 4


def grow_in_between(group: dist.ProcessGroup) -> bool:
    tables, batches = build(group), batches_of(dist.get_rank(group))
    rows = []
    for _, of_step in Lookahead(tables, batches, themselves):
        rows.append(of_step)
        tables[0].grow(tables[0].num_embeddings + 5)  # the next batch may be planned already
    return same(rows, [of_step for _, of_step in looked_up(tables, batches)])


def test_a_table_may_grow_between_two_steps(ranks: RankPool):
    assert ranks.run(grow_in_between) == [True] * 4
