"""The server of the tests' processes: has it imported what its processes need?"""

import sys

import torch.distributed as dist

from tests.forked import PRELOADED
from tests.rank_pool import RankPool


def missing(group: dist.ProcessGroup) -> list[str]:
    return [name for name in PRELOADED if name not in sys.modules]


def test_the_server_has_imported_what_it_should() -> None:
    """It passes over what it cannot import, and every process would import all of that anew, in seconds."""
    with RankPool() as pool:  # new ranks, which no other test has made import anything
        assert pool.run(missing, world_size=1) == [[]]
