"""The pool that the multi-process tests stand on: does it tell the truth?"""

import os
import time

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.rank_pool import RankPool, RanksFailed
from tests.rank_worker import RANKS


def pid(group: dist.ProcessGroup) -> int:
    return os.getpid()


def reduce_rank(group: dist.ProcessGroup, start: int) -> tuple[int, Tensor]:
    value = torch.tensor([start + dist.get_rank(group)])
    dist.all_reduce(value, group=group)
    return dist.get_rank(group), value


def raise_everywhere(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) > 0:  # rank 0 is now a collective behind
        dist.all_reduce(torch.ones(1), group=group, async_op=True)
    raise ValueError(f"rank {dist.get_rank(group)} is not amused")


def raise_on_rank_one(group: dist.ProcessGroup) -> None:
    print(f"rank {dist.get_rank(group)} was here")
    if dist.get_rank(group) == 1:
        raise ValueError("rank 1 is not amused")
    dist.barrier(group)


def return_on_rank_zero(group: dist.ProcessGroup) -> None:
    if dist.get_rank(group) > 0:
        raise ValueError("not rank 0")


def exit_on_rank_two(group: dist.ProcessGroup) -> None:
    print(f"rank {dist.get_rank(group)} was here")
    if dist.get_rank(group) == 2:
        os._exit(7)


def sleep_on_rank_zero(group: dist.ProcessGroup) -> None:
    print(f"rank {dist.get_rank(group)} was here")
    if dist.get_rank(group) == 0:
        time.sleep(600)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_results_arrive_by_value_in_rank_order(ranks: RankPool, world_size: int) -> None:
    total = sum(10 + rank for rank in range(world_size))
    expected = [(rank, torch.tensor([total])) for rank in range(world_size)]
    assert ranks.run(reduce_rank, 10, world_size=world_size) == expected


def test_processes_are_reused(ranks: RankPool) -> None:
    first = ranks.run(pid, world_size=4)
    assert ranks.run(pid, world_size=2) == first[:2]
    assert ranks.pids == first


def test_errors_on_every_rank_are_returned_and_leave_no_trace(ranks: RankPool) -> None:
    before = ranks.run(pid)
    errors = ranks.run_expecting_errors(raise_everywhere)
    assert [error.type_name for error in errors] == ["ValueError"] * 4
    assert [error.message for error in errors] == [f"rank {rank} is not amused" for rank in range(4)]
    assert ranks.run(reduce_rank, 0)[0] == (0, torch.tensor([6]))
    assert ranks.run(pid) == before


def test_failures_are_reported_quickly_and_the_next_call_works() -> None:
    with RankPool() as pool:
        cases = [
            (raise_on_rank_one, 60.0, ["rank 1: ValueError: rank 1 is not amused", "in raise_on_rank_one"]),
            (exit_on_rank_two, 60.0, ["rank 2: Died: exit code 7", "rank 1: returned normally"]),
            (sleep_on_rank_zero, 1.0, ["rank 0: Hung: no answer (limit: 1 s", "in sleep_on_rank_zero"]),
        ]
        for function, timeout, texts in cases:
            pool.run(reduce_rank, 0)
            old_pids = pool.pids
            start = time.monotonic()
            with pytest.raises(RanksFailed) as failure:
                pool.run(function, timeout=timeout)
            assert time.monotonic() - start < 8
            for text in [*texts, *(f"output of rank {rank}:\nrank {rank} was here" for rank in range(4))]:
                assert text in str(failure.value)
            for old_pid in old_pids:
                with pytest.raises(ProcessLookupError):
                    os.kill(old_pid, 0)
        assert pool.run(reduce_rank, 0, world_size=2)[1] == (1, torch.tensor([1]))
        with pytest.raises(RanksFailed, match="rank 0: returned normally"):  # where every rank must raise
            pool.run_expecting_errors(return_on_rank_zero, world_size=2)


def make_a_group(group: dist.ProcessGroup) -> int:
    """The size of a new group of all ranks; if only some take part, torch counts it, and its later names differ."""
    if dist.get_world_size(group) < RANKS:
        dist.distributed_c10d._world.group_count += 1
        return 0
    return dist.get_world_size(dist.new_group())


def test_groups_that_only_some_ranks_counted_do_not_disturb_later_ones(ranks: RankPool) -> None:
    assert ranks.run(make_a_group, world_size=2) == [0, 0]
    assert ranks.run(make_a_group) == [RANKS] * RANKS
