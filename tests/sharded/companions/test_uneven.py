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


@dataclass
class Record:
    """A batch of a type of the user's own."""

    ids: Tensor
    number: int = 0


def walk(group: dist.ProcessGroup, what: str) -> int:
    """How many batches came, where rank 1 has none or spoils something."""
    rank, wrong = dist.get_rank(group), dist.get_rank(group) == 1
    records = [Record(torch.zeros(3, 2).long(), number=2)] * 2

    def broken() -> Iterator[Batch]:
        yield batches_of(0)[0]
        if wrong:
            raise OSError("line 3 is not UTF-8")

    class Unreadable:
        def __iter__(self) -> Iterator[Batch]:
            raise KeyError("split")

    loops: dict[str, Iterable[object]] = {
        "even batches of which no empty one can be made": uneven_of(records, group),
        "uneven batches of which no empty one can be made": uneven_of(records[wrong:], group),
        "none of a type of the user's own": uneven_of([] if wrong else [Record(torch.zeros(3, 2))], group),
        "none, and a function that makes one": uneven_of(
            [] if wrong else records, group, lambda: Record(torch.zeros(0, 2).long())
        ),
        "a function that fails": uneven_of([] if wrong else records, group, lambda: {}["ids"]),
        "no batch on any rank": uneven_of([], group),
        "an error in the middle": uneven_of(broken(), group),
        "an error at the beginning": uneven_of(Unreadable() if wrong else batches_of(0), group),
        "an error of the count": uneven_of(batches_of(0), group).counted(lambda b: b["no"] if wrong else rank),
    }
    batches = 0
    for _ in loops[what]:
        batches += 1
    return batches


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("even batches of which no empty one can be made", 2),
        ("none, and a function that makes one", 2),
        ("no batch on any rank", 0),
    ],
)
def test_what_can_be_made_is_made(ranks: RankPool, what: str, number: int):
    assert ranks.run(walk, what, world_size=3) == [number] * 3


NOT_GUESSED = (
    "what is an object of type int in a batch without examples? Pass empty=, a function that returns such a batch"
)
MADE_NONE = "rank 1 could not make an empty batch"
NOT_MADE = "rank 1 could not make its next batch"
ERRORS = {
    "uneven batches of which no empty one can be made": [f"RuntimeError: {MADE_NONE}: TypeError: {NOT_GUESSED}"] * 2,
    "none of a type of the user's own": [
        f"TypeError: rank 1 has had no batch, and cannot be told what an empty one is like: {NOT_GUESSED}"
    ]
    * 2,
    "a function that fails": [f"RuntimeError: {MADE_NONE}: KeyError: 'ids'"] * 2,
    "an error in the middle": [
        "OSError: line 3 is not UTF-8",
        f"RuntimeError: {NOT_MADE}: OSError: line 3 is not UTF-8",
    ],
    "an error at the beginning": ["KeyError: 'split'", f"RuntimeError: {NOT_MADE}: KeyError: 'split'"],
    "an error of the count": ["KeyError: 'no'", f"RuntimeError: {NOT_MADE}: KeyError: 'no'"],
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_on_one_rank_is_raised_on_all(ranks: RankPool, what: str):
    of_rank_1, of_others = ERRORS[what]
    errors = ranks.run_expecting_errors(walk, what, world_size=3)
    assert [f"{e.type_name}: {e.message}" for e in errors] == [of_others, of_rank_1, of_others]


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


def leave_alone(group: dist.ProcessGroup) -> None:
    """Rank 1 leaves the loop at its second batch, and looks up something else."""
    table = DistributedEmbedding(V, D, process_group=group)
    batches = uneven_of(batches_of(dist.get_rank(group)), group)
    for number, batch in enumerate(batches):
        if number == 1 and dist.get_rank(group) == 1:
            break
        table(batch["ids"]).sum().backward()
    table.to_embedding()


def test_a_rank_that_leaves_the_loop_alone_is_told_to_all(ranks: RankPool):
    errors = ranks.run_expecting_errors(leave_alone, world_size=3)
    assert {error.type_name for error in errors} == {"ExchangeMismatchError"}
    assert len({error.message for error in errors}) == 1
    assert "rank 0 is in lookup 2 of table" in errors[0].message
    assert "rank 1 in the gathering of table" in errors[0].message


def walk_in_a_group_in_use(group: dist.ProcessGroup, which: str) -> list[str]:
    table = DistributedEmbedding(V, D, process_group=group)
    used = table.process_group if which == "a table's" else dist.group.WORLD
    messages = []
    for build in (lambda: uneven([], used), lambda: Lookahead([table], [], list, used)):
        with pytest.raises(ValueError, match="pass another") as error:
            build()
        messages.append(str(error.value))
    return messages


@pytest.mark.parametrize("which", ["a table's", "the default group"])
def test_a_group_that_is_used_by_others_is_refused(ranks: RankPool, which: str):
    message = (
        "process_group is the default group or a table's, and would be used in two threads at once; pass another group "
        "of these ranks, made for this alone"
    )
    assert ranks.run(walk_in_a_group_in_use, which) == [[message] * 2] * 4
