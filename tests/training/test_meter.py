"""What the meter reports of the exchanges: each group of ranks once, however many tables it has."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding, lookup
from dist_s2s.training.events import Report, StepEnd
from dist_s2s.training.meter import Meter
from tests.rank_pool import RankPool

IDS = torch.tensor([3, 3, 5, 7])


def trainer_of(tables: list[DistributedEmbedding], ranks: Ranks) -> tuple[Any, list[Report]]:
    """What a meter needs of a trainer, and what it tells it."""
    told: list[Report] = []
    progress = SimpleNamespace(seconds=0.0, step_seconds=0.0, epoch=0, step=1, skipped_steps=0)
    config = SimpleNamespace(training=SimpleNamespace(log_every=1))
    state = SimpleNamespace(core_optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]))
    return SimpleNamespace(
        tables=tables, ranks=ranks, progress=progress, config=config, state=state, fraction=0.0, tell=told.append
    ), told


def measure(process_group: dist.ProcessGroup, num_tables: int) -> tuple[float, float]:
    """The reported ratio of distinct ids, and the reported seconds of exchange over those of both groups together."""
    tables = [DistributedEmbedding(10, 2, process_group=process_group) for _ in range(num_tables)]
    other = DistributedEmbedding(10, 2)  # the same ranks in another process group, hence another group of ranks
    assert other.group is not tables[0].group
    size = dist.get_world_size(process_group)
    ranks = Ranks(dist.get_rank(process_group), size, torch.device("cpu"), process_group)
    other(IDS)  # before the meter, which begins to count at 0
    trainer, told = trainer_of([*tables, other], ranks)
    meter = Meter(trainer)
    torch.stack([rows.sum() for rows in lookup(tables, [IDS] * num_tables)]).sum().backward()
    other(torch.tensor([1])).sum().backward()
    (seconds,) = ranks.sum([tables[0].statistics.seconds + other.statistics.seconds])
    meter(StepEnd(step=1, loss=1.0, gradient_norm=1.0, target_tokens=4))
    [report] = told
    assert tables[0].statistics.ids == other.statistics.ids == 0  # a new window
    return report.values["distinct_id_ratio"], report.values["exchange_seconds"] / (seconds / size)


@pytest.mark.parametrize("num_tables", [1, 2])
def test_tables_of_the_same_ranks_count_once(ranks: RankPool, num_tables: int) -> None:
    # Of the other table one row for one id; were the tables of one group counted twice, it would weigh less.
    expected = (3 * num_tables + 1) / (4 * num_tables + 1)
    for ratio, seconds in ranks.run(measure, num_tables):
        assert ratio == pytest.approx(expected)
        assert seconds == pytest.approx(1.0)
