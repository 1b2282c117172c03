"""Ranks with fewer batches keep in step, and all train as one process with the batches of all."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from dist_s2s.sharded import DistributedEmbedding, Lookahead, RowWiseAdagrad, uneven
from dist_s2s.sharded.companions.uneven import UnevenBatches
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.collectives import counted_collectives
from tests.sharded.reference import TRANSPORTS, assemble, random_ids

V, D, PASSES = 131, 5, 2
NUMBERS = [3, 0, 5, 1]  # of batches, by rank
Batch = dict[str, Tensor]


def batches_of(rank: int) -> list[Batch]:
    """Of different sizes, with a feature for each example."""
    return [
        {"ids": random_ids(V, (1 + rank + step, 2), 10 * rank + step), "x": torch.full((1 + rank + step,), 0.5 + step)}
        for step in range(NUMBERS[rank])
    ]


def new_dense() -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(D, 1, dtype=torch.float64)


def sum_of_losses(rows: Tensor, dense: nn.Module, batch: Batch) -> Tensor:
    return (dense(rows.sum(1)).squeeze(1) * batch["x"]).square().sum()


def optimizers_of(weight: nn.Parameter, dense: nn.Module) -> list[Optimizer]:
    return [RowWiseAdagrad([weight], lr=0.1), SGD(dense.parameters(), lr=0.01)]


def size_of(batch: Batch) -> int:
    return len(batch["ids"])


def uneven_of(
    batches: Iterable[Batch], group: dist.ProcessGroup | None, empty: Callable[[], Batch] | None = None
) -> UnevenBatches[Batch]:
    """With all ranks in a group of its own; with some in one that the pool has for such uses."""
    if group is None or dist.get_world_size(group) == dist.get_world_size():
        return uneven(batches, empty=empty)
    return uneven(batches, second_group(dist.get_world_size(group)), empty=empty)


Trained = tuple[Tensor, Tensor, list[int]]


def train(group: dist.ProcessGroup, transport: str, ahead: bool) -> Trained:
    """Shard, dense weight and sizes of this rank's batches."""
    table = DistributedEmbedding(V, D, process_group=group, seed=1, dtype=torch.float64, transport=transport)
    dense = DistributedDataParallel(new_dense(), process_group=group)
    optimizers, sizes = optimizers_of(table.weight, dense), []
    batches = uneven_of(batches_of(dist.get_rank(group)), group)

    def steps() -> Iterator[tuple[Batch, int, Tensor]]:
        if ahead:
            counted = batches.counted(size_of)
            for (batch, number), (rows,) in Lookahead([table], counted, lambda pair: [pair[0]["ids"]]):
                yield batch, number, rows
        else:
            for batch, number in batches.counted(size_of):
                yield batch, number, table(batch["ids"])

    for _ in range(PASSES):
        for batch, number, rows in steps():
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = sum_of_losses(rows, dense, batch)
            (dist.get_world_size(group) * loss / number).backward()
            for optimizer in optimizers:
                optimizer.step()
            sizes.append(size_of(batch))
    return table.weight.detach(), dense.module.weight.detach(), sizes


def train_alone(world_size: int) -> tuple[Tensor, Tensor]:
    weight = DistributedEmbedding(V, D, seed=1, dtype=torch.float64).weight.detach().clone()
    table, dense = nn.Embedding(V, D, _weight=weight), new_dense()
    optimizers, batches = optimizers_of(table.weight, dense), [batches_of(rank) for rank in range(world_size)]
    for _ in range(PASSES):
        for step in range(max(map(len, batches))):
            parts = [of_rank[step] for of_rank in batches if step < len(of_rank)]
            batch = {name: torch.cat([part[name] for part in parts]) for name in ("ids", "x")}
            for optimizer in optimizers:
                optimizer.zero_grad()
            (sum_of_losses(table(batch["ids"]), dense, batch) / size_of(batch)).backward()
            table.weight.grad = table.weight.grad.to_sparse(1)
            keep_rows(table.weight, batch["ids"])
            for optimizer in optimizers:
                optimizer.step()
    return table.weight.detach(), dense.weight.detach()


def keep_rows(weight: nn.Parameter, ids: Tensor) -> None:
    """Make the gradient that of the rows that were looked up."""
    rows = ids.unique()
    weight.grad = torch.sparse_coo_tensor(
        rows[None], weight.grad.to_dense()[rows], weight.shape, is_coalesced=True, check_invariants=True
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("world_size", "ahead"), [(2, False), (3, False), (4, False), (4, True)])
def test_training_equals_that_of_one_process_with_all_batches(
    ranks: RankPool, world_size: int, ahead: bool, transport: str
):
    shards, dense, sizes = zip(*ranks.run(train, transport, ahead, world_size=world_size), strict=True)
    rows, weight = train_alone(world_size)
    torch.testing.assert_close(assemble(shards, "contiguous"), rows, rtol=0, atol=1e-10)
    for mine in dense:
        assert torch.equal(mine, dense[0])
        torch.testing.assert_close(mine, weight, rtol=0, atol=1e-10)
    steps = max(NUMBERS[:world_size])
    for rank, mine in enumerate(sizes):
        assert mine == ([1 + rank + step for step in range(NUMBERS[rank])] + [0] * (steps - NUMBERS[rank])) * PASSES


def numbers_of(group: dist.ProcessGroup | None) -> tuple[list[int], list[tuple[int, int]]]:
    rank = 2 if group is None else dist.get_rank(group)
    batches = uneven_of(batches_of(rank), group)
    return [size_of(batch) for batch in batches], [(size_of(b), n) for b, n in batches.counted(size_of)]


def test_without_other_ranks_it_is_the_plain_loop(ranks: RankPool):
    for sizes, counted in [numbers_of(None), *ranks.run(numbers_of, world_size=1)]:
        assert len(sizes) in (3, 5)
        assert counted == [(size, size) for size in sizes]


def walk_on_all_ranks(_: dist.ProcessGroup) -> int:
    return len(list(uneven(batches_of(dist.get_rank()))))


def test_by_default_all_ranks_go_in_step(ranks: RankPool):
    assert ranks.run(walk_on_all_ranks) == [5] * 4


def walk_as_a_stranger(_: dist.ProcessGroup) -> str:
    half = dist.new_group([0, 1])
    try:
        return str(len(list(uneven(batches_of(0), half))))
    except ValueError as error:
        return str(error)


def test_a_rank_that_is_no_member_is_refused(ranks: RankPool):
    stranger = "rank 2 is not a member of the process group"
    assert ranks.run(walk_as_a_stranger) == ["3", "3", stranger, stranger.replace("2", "3")]


def count(group: dist.ProcessGroup) -> tuple[Counter[str], Counter[str], set[str]]:
    """Collectives in the caller's thread and in others, and the threads in which batches were made."""
    threads = set()

    def batches() -> Iterator[Batch]:
        for batch in batches_of(dist.get_rank(group)):
            threads.add(threading.current_thread().name)
            yield batch

    loop = uneven_of(Batches(batches), group, lambda: {"ids": torch.zeros(0, 2).long(), "x": torch.zeros(0)})
    with counted_collectives() as counts:
        for _ in loop:
            pass
    return counts["main"], counts["background"], threads


@dataclass
class Batches:
    """Something to be iterated more than once."""

    make: object

    def __iter__(self) -> Iterator[Batch]:
        return self.make()  # type: ignore[operator, no-any-return]


def test_a_step_costs_one_exchange_in_the_background(ranks: RankPool):
    name = "meet" if "shared_memory" in TRANSPORTS else "all_to_all_single"
    for main, background, threads in ranks.run(count, world_size=3):
        assert not main
        assert background == {name: 1 + max(NUMBERS[:3])}
        assert threads <= {threading.main_thread().name}


def leave_together(group: dist.ProcessGroup) -> tuple[list[int], list[str]]:
    """Sizes of the batches of a loop that is left, then of a whole one; threads that remain."""
    batches, sizes = uneven_of(batches_of(dist.get_rank(group)), group), []
    for batch in batches:
        sizes.append(size_of(batch))
        if len(sizes) == 2:
            break
    sizes += [size_of(batch) for batch in batches]
    return sizes, [thread.name for thread in threading.enumerate() if thread.name == "uneven"]


def test_all_ranks_may_leave_the_loop_and_begin_anew(ranks: RankPool):
    assert ranks.run(leave_together, world_size=3) == [
        ([1, 2, 1, 2, 3, 0, 0], []),
        ([0, 0, 0, 0, 0, 0, 0], []),
        ([3, 4, 3, 4, 5, 6, 7], []),
    ]
