"""Expected numbers of distinct ids against simulated batches."""

from typing import Any

import numpy as np
import pytest
import torch

from dist_s2s.cost.id_traffic import IdDistribution, expected_rows
from dist_s2s.cost.problem import LAYOUTS, Layout
from dist_s2s.sharded import RowPartition


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 1.5])
@pytest.mark.parametrize(("num_ids", "ranks", "ids"), [(131, 4, 40), (100_000, 4, 2_000), (3, 4, 5), (1, 1, 3)])
def test_expected_rows_are_those_of_simulated_batches(
    layout: Layout, skew: float, num_ids: int, ranks: int, ids: int
) -> None:
    distribution, partition = IdDistribution(num_ids, skew), RowPartition(num_ids, ranks, layout)
    generator = torch.Generator().manual_seed(5)
    trials = 400 if ids < 100 else 40

    def owners(rows: torch.Tensor) -> np.ndarray[Any, Any]:
        of_rows = rows % ranks if layout == "round_robin" else torch.bucketize(rows, partition.offsets, right=True) - 1
        return np.bincount(of_rows.numpy(), minlength=ranks)

    simulated = sum(owners(distribution.draw(ids, generator).unique()) for _ in range(trials)) / trials
    expected = expected_rows(skew, ids, partition)
    # The number of distinct ids varies less than that of as many independent events: 4 standard deviations of these.
    assert (np.abs(expected - simulated) <= 4 * np.sqrt(expected / trials)).all()
    assert expected.sum() == pytest.approx(simulated.sum(), rel=0.02)


@pytest.mark.parametrize("skew", [0.0, 0.7, 1.0, 1.5])
def test_buckets_of_ids_give_what_single_ids_give(skew: float) -> None:
    distribution = IdDistribution(1_000_003, skew)
    edges = np.arange(distribution.num_ids + 1, dtype=np.float64)
    single = -np.expm1(5_000 * np.log1p(-np.diff(distribution.below(edges))))
    for layout in LAYOUTS:
        partition = RowPartition(distribution.num_ids, 4, layout)
        parts = (
            np.split(single, partition.offsets[1:].tolist())
            if layout == "contiguous"
            else [single[owner::4] for owner in range(4)]
        )
        expected = [part.sum() for part in parts]
        assert expected_rows(skew, 5_000, partition) == pytest.approx(expected, rel=1e-3)


def test_a_billion_rows_are_no_more_work() -> None:
    rows = expected_rows(1.0, 4_096, RowPartition(10**9, 64, "contiguous"))
    assert rows[0] > 10 * rows[1:].max()
    assert rows.sum() < 4_096
