"""Empty batches that cannot be made, errors in one rank's loader, and a rank that leaves the loop alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead, uneven
from tests.rank_pool import RankPool
from tests.sharded.companions.test_uneven import Batch, D, V, batches_of, uneven_of


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
    "uneven batches of which no empty one can be made": [f"AgreedError: {MADE_NONE}: TypeError: {NOT_GUESSED}"] * 2,
    "none of a type of the user's own": [
        f"TypeError: rank 1 has had no batch, and cannot be told what an empty one is like: {NOT_GUESSED}"
    ]
    * 2,
    "a function that fails": [f"AgreedError: {MADE_NONE}: KeyError: 'ids'"] * 2,
    "an error in the middle": [
        "OSError: line 3 is not UTF-8",
        f"PeerError: {NOT_MADE}: OSError: line 3 is not UTF-8",
    ],
    "an error at the beginning": ["KeyError: 'split'", f"PeerError: {NOT_MADE}: KeyError: 'split'"],
    "an error of the count": ["KeyError: 'no'", f"PeerError: {NOT_MADE}: KeyError: 'no'"],
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_on_one_rank_is_raised_on_all(ranks: RankPool, what: str):
    of_rank_1, of_others = ERRORS[what]
    errors = ranks.run_expecting_errors(walk, what, world_size=3)
    assert [f"{e.type_name}: {e.message}" for e in errors] == [of_others, of_rank_1, of_others]


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
