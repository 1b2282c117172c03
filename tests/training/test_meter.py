"""What the meter reports of the exchanges: each group of ranks once, however many tables it has."""

import pytest
import torch
import torch.distributed as dist

from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding, lookup
from dist_s2s.training.meter import Meter
from tests.rank_pool import RankPool

IDS = torch.tensor([3, 3, 5, 7])


def measure(process_group: dist.ProcessGroup, num_tables: int) -> tuple[float, float]:
    """The reported ratio of distinct ids, and the reported seconds of exchange over those of both groups together."""
    tables = [DistributedEmbedding(10, 2, process_group=process_group) for _ in range(num_tables)]
    other = DistributedEmbedding(10, 2)  # the same ranks in another process group, hence another group of ranks
    assert other.group is not tables[0].group
    size = dist.get_world_size(process_group)
    ranks = Ranks(dist.get_rank(process_group), size, torch.device("cpu"), process_group)
    other(IDS)  # before the meter, which begins to count at 0
    meter = Meter(ranks, [*tables, other], seconds_before=0.0)
    torch.stack([rows.sum() for rows in lookup(tables, [IDS] * num_tables)]).sum().backward()
    other(torch.tensor([1])).sum().backward()
    (seconds,) = ranks.sum([tables[0].statistics.seconds + other.statistics.seconds])
    meter.add(loss=1.0, target_tokens=4)
    report = meter.report()
    assert report is not None
    assert tables[0].statistics.ids == other.statistics.ids == 0  # a new window
    return report.values["distinct_id_ratio"], report.values["exchange_seconds"] / (seconds / size)


@pytest.mark.parametrize("num_tables", [1, 2])
def test_tables_of_the_same_ranks_count_once(ranks: RankPool, num_tables: int) -> None:
    # Of the other table one row for one id; were the tables of one group counted twice, it would weigh less.
    expected = (3 * num_tables + 1) / (4 * num_tables + 1)
    for ratio, seconds in ranks.run(measure, num_tables):
        assert ratio == pytest.approx(expected)
        assert seconds == pytest.approx(1.0)
