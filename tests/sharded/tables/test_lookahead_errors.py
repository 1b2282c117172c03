"""What goes wrong on one rank while the next batch is prepared ends the loop on every rank, with one reason."""

import re
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, Lookahead
from tests.rank_pool import RankPool

V, D = 131, 4
ERROR_SECONDS = 10.0  # really 2; the margin is for a machine that is busy with other tests
GOOD = [torch.tensor([[0, 65], [130, 7]]), torch.tensor([3, 3])]


def four_batches(_: bool) -> Iterator[list[Tensor]]:
    return iter([GOOD] * 4)


def with_third(bad: Sequence[object]) -> Callable[[bool], Iterator[Sequence[object]]]:
    """Four batches, the third of them bad on the rank that is wrong."""
    return lambda is_wrong: iter([GOOD, GOOD, bad if is_wrong else GOOD, GOOD])


def two_batches(is_wrong: bool) -> Iterator[list[Tensor]]:
    return iter([GOOD] * (2 if is_wrong else 4))


def broken_after_two(is_wrong: bool) -> Iterator[list[Tensor]]:
    yield from two_batches(is_wrong)
    if is_wrong:
        raise OSError("line 3 of the corpus is not UTF-8")


def ids_of(batch: Sequence[Tensor]) -> Sequence[Tensor]:
    return batch


def ids_of_failing(batch: Sequence[Tensor]) -> Sequence[Tensor]:
    raise KeyError("target")


FEWER = (
    "rank 1 has no more batches, but rank 0 has; all ranks must have as many: wrap the batches in "
    "dist_s2s.sharded.uneven"
)
OF_CORPUS = "OSError: line 3 of the corpus is not UTF-8"
# For each: the batches of a rank, told whether it is the wrong one; the steps before the error; the error of the rank
# that is wrong, and that of the others.
WRONG: dict[str, tuple[Callable[[bool], Iterator[Sequence[object]]], str, str]] = {
    "fewer batches": (
        two_batches,
        *[f"RuntimeError: {FEWER}"] * 2,
    ),
    "an error in batches": (
        broken_after_two,
        OF_CORPUS,
        f"PeerError: rank 1 could not make its next batch: {OF_CORPUS}",
    ),
    "an id out of range": (
        with_third([GOOD[0], torch.tensor([130, 131])]),
        *["IndexError: id 131 at position (1,) on rank 1 is outside [0, 131)"] * 2,
    ),
    "ids that are not integers": (
        with_third([GOOD[0].float(), GOOD[1]]),
        *["TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()"] * 2,
    ),
    "ids that are no tensor": (
        with_third([[1, 2], GOOD[1]]),
        *["TypeError: ids on rank 1 must be a tensor of integers, but are a list"] * 2,
    ),
    "ids of one table": (with_third(GOOD[:1]), *["ValueError: 2 tables need as many tensors of ids, but got 1"] * 2),
}


def build(group: dist.ProcessGroup | None) -> list[DistributedEmbedding]:
    return [DistributedEmbedding(V, D, process_group=group, seed=0) for _ in range(2)]


def steps_and_error(steps: Iterator[object]) -> tuple[int, str, float]:
    """How many steps came before the error, the error, and after how many seconds."""
    done, start = 0, time.monotonic()
    try:
        for _ in steps:
            done, start = done + 1, time.monotonic()
    except Exception as error:
        text = re.sub(rf"^table \d+ \({V} x {D}\): ", "", str(error))  # of which there are two
        return done, f"{type(error).__name__}: {text}", time.monotonic() - start
    return done, "nothing", 0.0


def go_wrong_on_rank_one(group: dist.ProcessGroup, kind: str) -> tuple[int, str, float, int]:
    """What comes of it, and the steps of a good loop afterwards, in the same group."""
    background = dist.new_group()
    is_wrong = dist.get_rank(group) == 1
    bad = Lookahead(build(group), WRONG[kind][0](is_wrong), ids_of, background)
    done, error, seconds = steps_and_error(iter(bad))
    good = Lookahead(build(group), four_batches(False), ids_of, background)
    steps = sum(1 for _ in good)
    dist.destroy_process_group(background)
    return done, error, seconds, steps


@pytest.mark.parametrize("kind", WRONG)
def test_every_rank_leaves_the_loop_at_the_same_step(ranks: RankPool, kind: str):
    _, of_the_wrong, of_the_others = WRONG[kind]
    for rank, (done, error, seconds, steps) in enumerate(ranks.run(go_wrong_on_rank_one, kind)):
        assert done == 2
        assert error == (of_the_wrong if rank == 1 else of_the_others)
        assert seconds < ERROR_SECONDS
        assert steps == 4


@pytest.mark.parametrize("kind", [kind for kind in WRONG if kind != "fewer batches"])
def test_without_a_group_the_error_is_raised_as_it_is(kind: str):
    batches, of_the_wrong, _ = WRONG[kind]
    done, error, _ = steps_and_error(iter(Lookahead(build(None), batches(True), ids_of)))
    assert (done, error) == (2, of_the_wrong.replace("rank 1", "rank 0"))


def fail_in_ids_of(group: dist.ProcessGroup) -> str:
    is_wrong = dist.get_rank(group) == 2
    steps = Lookahead(build(group), four_batches(False), ids_of_failing if is_wrong else ids_of)
    return steps_and_error(iter(steps))[1]


def test_an_error_in_ids_of(ranks: RankPool):
    others = "PeerError: rank 2 could not make its next batch: KeyError: 'target'"
    assert ranks.run(fail_in_ids_of) == [others, others, "KeyError: 'target'", others]
