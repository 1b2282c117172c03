"""Bags become sums for each owner, or rows, and from either the same outputs; gradients take the transposed way."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dist_s2s.sharded.rows.bags import Bags, ListedBags, SummedBags
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.rows.runs import Runs

NUM_ROWS, D = 9, 3
bags_of_positions = st.lists(st.lists(st.integers(0, NUM_ROWS - 1), max_size=4), max_size=5)


def made(listed: list[list[int]], weighted: bool = False) -> tuple[Tensor, Bags]:
    positions = torch.tensor([position for bag in listed for position in bag], dtype=torch.int64)
    weights = torch.arange(1.0, len(positions) + 1, dtype=torch.float64) if weighted else None
    return positions, Bags(torch.tensor([len(bag) for bag in listed], dtype=torch.int64), weights)


def expected(listed: list[list[int]], whole: Tensor, bags: Bags, mode: str) -> Tensor:
    weights = (torch.ones(sum(map(len, listed))) if bags.weights is None else bags.weights).split(
        list(map(len, listed))
    )
    weighted = [whole[bag] * mine[:, None] for bag, mine in zip(listed, weights, strict=True)]
    sums = [rows.sum(0) / (max(1, len(rows)) if mode == "mean" else 1) for rows in weighted]
    return torch.stack(sums) if sums else whole[:0]


@pytest.mark.parametrize("num_owners", [1, 2, 4, 12])
@given(listed=bags_of_positions, weighted=st.booleans())
def test_owners_sums_add_up_to_the_bags(num_owners: int, listed: list[list[int]], weighted: bool):
    whole = torch.arange(NUM_ROWS * D, dtype=torch.float64).view(NUM_ROWS, D)
    partition = RowPartition(NUM_ROWS, num_owners)
    for mode in ("sum",) if weighted else ("sum", "mean"):
        positions, bags = made(listed, weighted)
        selection = SummedBags(positions, bags, mode, partition.offsets)
        named = selection.named
        assert selection.num_sums == len(named.owners) == len(named.bags.sizes)
        assert bool((named.bags.sizes > 0).all())
        of_rows = named.owners.repeat_interleave(named.bags.sizes)
        assert [partition.owner_and_row(int(row))[0] for row in named.positions] == of_rows.tolist()
        assert of_rows.tolist() == sorted(of_rows.tolist())
        found = selection.expand(named.bags.pool(named.positions, whole))
        torch.testing.assert_close(found, expected(listed, whole, bags, mode))
        torch.testing.assert_close(selection.read(whole), found)


@given(listed=bags_of_positions, weighted=st.booleans())
def test_reduce_is_the_transpose_of_expand_and_of_pool(listed: list[list[int]], weighted: bool):
    positions, bags = made(listed, weighted)
    generator = torch.Generator().manual_seed(len(positions))
    for mode in ("sum", "mean"):
        selection = SummedBags(positions, bags, mode, RowPartition(NUM_ROWS, 3).offsets)
        sums = torch.randn(selection.num_sums, D, generator=generator, dtype=torch.float64)
        gradients = torch.randn(len(listed), D, generator=generator, dtype=torch.float64)
        left, right = (selection.expand(sums) * gradients).sum(), (sums * selection.reduce(gradients)).sum()
        torch.testing.assert_close(left, right)
    whole, runs = torch.randn(NUM_ROWS, D, generator=generator, dtype=torch.float64), Runs.of(positions)
    left = (bags.pool(positions, whole) * gradients).sum()
    torch.testing.assert_close(left, (whole[runs.distinct] * bags.reduce(runs, gradients)).sum())


@pytest.mark.parametrize("deduplicate", [True, False])
@given(listed=bags_of_positions)
def test_rows_are_pooled_by_the_asker(deduplicate: bool, listed: list[list[int]]):
    whole = torch.arange(NUM_ROWS * D, dtype=torch.float64).view(NUM_ROWS, D)
    positions, bags = made(listed)
    selection = ListedBags(positions, bags, "mean", RowPartition(NUM_ROWS, 4).offsets, deduplicate)
    named = selection.named
    assert (
        selection.num_sums == len(named.positions) == (len(set(positions.tolist())) if deduplicate else len(positions))
    )
    assert named.counts.sum() == len(positions)
    assert named.bags.sizes.tolist() == [1] * selection.num_sums
    rows = selection.expand(named.bags.pool(named.positions, whole))
    assert torch.equal(rows, selection.read(whole))
    torch.testing.assert_close(selection.pool(rows), expected(listed, whole, bags, "mean"))
    assert selection.reduce(rows).data_ptr() != rows.data_ptr() or not len(rows)  # its reader may change it


def test_pooling_nothing_belongs_to_the_graph():
    rows = torch.ones(0, D, requires_grad=True)
    pooled = Bags(torch.tensor([0, 0])).pool(torch.empty(0, dtype=torch.int64), rows, "max")
    assert torch.equal(pooled, torch.zeros(2, D))
    pooled.sum().backward()
    assert rows.grad is not None
