"""Initial rows: normal, and the same on any number of ranks."""

import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.tables import embedding
from dist_s2s.sharded.tables.initialize import normal_rows
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble

V, D = 131, 5


def splitmix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def normal_row(row_id: int, dim: int, seed: int) -> list[float]:
    """normal_rows for one id, with Python's integers and floats."""
    pairs, values = (dim + 1) // 2, []
    for counter in range(row_id * pairs + 1, (row_id + 1) * pairs + 1):
        bits = splitmix64((counter * 0x9E3779B97F4A7C15 + splitmix64(seed % 2**64)) % 2**64)
        radius = math.sqrt(-2 * math.log(((bits >> 40) + 0.5) / 2**24))
        angle = 2 * math.pi * ((bits >> 8) % 2**24) / 2**24
        values += [radius * math.cos(angle), radius * math.sin(angle)]
    return values[:dim]


@given(st.integers(0, 2**40), st.integers(1, 9), st.integers(-(2**63), 2**63 - 1))
def test_rows_are_box_and_muller_on_splitmix64(row_id: int, dim: int, seed: int):
    rows = normal_rows(torch.tensor([row_id]), dim, seed)
    assert rows.dtype == torch.float32
    expected = torch.tensor([normal_row(row_id, dim, seed)])
    # The logarithm loses digits where its argument is near 1, and the radius near 0.
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-3)
    assert (rows - expected).abs().median() < 2e-5


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_a_row_depends_on_its_id_alone(ids: list[int]):
    together = normal_rows(torch.tensor(ids, dtype=torch.int64), D, seed=3)
    one_by_one = [normal_rows(torch.tensor([row_id]), D, seed=3)[0] for row_id in ids]
    assert together.shape == (len(ids), D)
    assert all(torch.equal(*pair) for pair in zip(together, one_by_one, strict=True))


def test_values_are_standard_normal_and_independent():
    rows = normal_rows(torch.arange(20_000), 8, seed=0).double()
    sigma = 1 / math.sqrt(rows.numel())
    assert rows.isfinite().all()
    assert abs(rows.mean()) < 5 * sigma
    assert abs(rows.var() - 1) < 5 * math.sqrt(2) * sigma
    assert abs(rows.pow(4).mean() - 3) < 5 * math.sqrt(96) * sigma
    within_one = (rows.abs() < 1).double().mean()
    assert abs(within_one - math.erf(math.sqrt(0.5))) < 5 * 0.5 * sigma
    between_columns = torch.corrcoef(rows.t()) - torch.eye(8)
    between_rows = (rows[1:] * rows[:-1]).mean(0)
    assert between_columns.abs().max() < 5 / math.sqrt(20_000)
    assert between_rows.abs().max() < 5 / math.sqrt(20_000)


def test_another_seed_gives_other_rows():
    ids = torch.arange(5_000)
    first, second = normal_rows(ids, 4, seed=1), normal_rows(ids, 4, seed=2)
    assert abs((first * second).mean()) < 5 / math.sqrt(first.numel())


def shards(group: dist.ProcessGroup) -> list[Tensor]:
    """Shards of five tables: of a seed in each layout, in float64, with a padding row, and of torch's generator."""
    torch.manual_seed(100 + dist.get_rank(group))
    tables = [
        DistributedEmbedding(V, D, layout="contiguous", process_group=group, seed=42),
        DistributedEmbedding(V, D, layout="round_robin", process_group=group, seed=42),
        DistributedEmbedding(V, D, process_group=group, seed=42, dtype=torch.float64),
        DistributedEmbedding(V, D, padding_idx=-2, process_group=group, seed=42),
        DistributedEmbedding(V, D, process_group=group),
    ]
    return [table.weight.detach() for table in tables]


def test_one_seed_gives_the_same_table_at_every_world_size_and_layout(ranks: RankPool):
    expected = normal_rows(torch.arange(V), D, seed=42)
    padded = expected.clone()
    padded[V - 2] = 0
    torch.manual_seed(100)
    of_generator = DistributedEmbedding(V, D).weight.detach()
    assert not torch.equal(of_generator, expected)
    for world_size in (1, 2, 3, 4):
        contiguous, round_robin, double, with_padding, drawn = zip(
            *ranks.run(shards, world_size=world_size), strict=True
        )
        assert torch.equal(assemble(contiguous, "contiguous"), expected)
        assert torch.equal(assemble(round_robin, "round_robin"), expected)
        assert torch.equal(assemble(double, "contiguous"), expected.double())
        assert torch.equal(assemble(with_padding, "contiguous"), padded)
        assert torch.equal(assemble(drawn, "contiguous"), of_generator)  # rank 0's generator decides


@pytest.mark.parametrize("layout", LAYOUTS)
def test_filling_in_blocks_changes_nothing(layout: str, monkeypatch: pytest.MonkeyPatch):
    for elements in (1, 7 * D, 10**6):
        monkeypatch.setattr(embedding, "_INITIALIZE_ELEMENTS", elements)
        table = DistributedEmbedding(V, D, padding_idx=3, layout=layout, seed=1)
        expected = normal_rows(torch.arange(V), D, seed=1)
        expected[3] = 0
        assert torch.equal(table.weight, expected)


def test_torch_manual_seed_decides_the_default_seed():
    weights = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        weights.append(DistributedEmbedding(V, D).weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
