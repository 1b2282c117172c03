"""What ranks tell each other outside of a table's exchange."""

import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from tests.rank_pool import RankPool

COLLECTIVE_SECONDS = 1.0


def sleep_longer(group: dist.ProcessGroup, message: str) -> list[object]:
    """Takes longer on the first rank than a collective may wait, twice; the second time with an error, if any."""
    members = list(range(dist.get_world_size(group)))
    hasty = dist.new_group(members, timeout=timedelta(seconds=COLLECTIVE_SECONDS))
    ranks = Ranks(dist.get_rank(group), dist.get_world_size(group), torch.device("cpu"), hasty)
    called = list[int]()

    def work() -> list[int]:
        called.append(ranks.rank)
        time.sleep(2 * COLLECTIVE_SECONDS)
        if message and len(called) == 2:
            raise UserError(message)
        return [7]

    found: list[object] = [ranks.on_first_for_long(work)]
    try:
        found.append(ranks.on_first_for_long(work))
    except UserError as error:
        found.append(str(error))
    return [*found, called]


@pytest.mark.parametrize("message", ["", "no such file"])
def test_the_first_rank_may_take_long(message: str, ranks: RankPool) -> None:
    second = f"{message} (on rank 0)" if message else [7]
    for rank, found in enumerate(ranks.run(sleep_longer, message, world_size=3)):
        assert found == [[7], second, [0, 0] if rank == 0 else []]


def test_alone_it_is_a_call() -> None:
    assert Ranks.alone().on_first_for_long(lambda: "done") == "done"
