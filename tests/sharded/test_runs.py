"""Runs of equal integers, against torch's stable sort and sums written out."""

import pytest
import torch
from dist_s2s.sharded.runs import Runs
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

numbers = st.lists(st.integers(0, 5) | st.integers(0, 2**63 - 1), max_size=40)


@given(numbers)
def test_equal_integers_follow_each_other_in_their_order(listed: list[int]):
    given_numbers = torch.tensor(listed, dtype=torch.int64)
    expected, order = given_numbers.sort(stable=True)
    runs = Runs.of(given_numbers)
    assert torch.equal(runs.order, order)
    assert torch.equal(runs.distinct[runs.places], expected)
    assert torch.equal(runs.distinct, expected.unique())
    assert torch.equal(runs.counts, torch.bincount(runs.places, minlength=len(runs.distinct)))
    assert torch.equal(runs.distinct[runs.inverse], given_numbers)


@pytest.mark.parametrize("largest", [2**62, 2**57, 2**57 - 1, 2**20])
def test_integers_beside_the_largest_that_leave_room_for_their_places(largest: int):
    listed = torch.tensor([largest, 3, largest - 1, 0, 3, largest] * 10)  # 60, of which a place takes 6 bits
    runs = Runs.of(listed)
    assert runs.distinct.tolist() == [0, 3, largest - 1, largest]
    assert torch.equal(runs.order, listed.sort(stable=True)[1])


@pytest.mark.parametrize("size", [1, 63, 64, 4096])
def test_many_random_integers(size: int):
    listed = torch.randint(0, 1000, (size,), generator=torch.Generator().manual_seed(size))
    assert torch.equal(Runs.of(listed).order, listed.sort(stable=True)[1])


def rows_by_number(listed: Tensor, values: Tensor) -> dict[int, Tensor]:
    sums: dict[int, Tensor] = {}
    for number, value in zip(listed.tolist(), values, strict=True):
        sums[number] = sums[number] + value if number in sums else value
    return sums


def test_sums_add_values_in_the_order_in_which_they_were_given():
    generator = torch.Generator().manual_seed(0)
    listed = torch.randint(0, 7, (50,), generator=generator)
    values = torch.randn(50, 3, generator=generator)
    runs = Runs.of(listed)
    expected = rows_by_number(listed, values)
    assert torch.equal(runs.sums(values), torch.stack([expected[number] for number in runs.distinct.tolist()]))
    alone = Runs.of(listed, deduplicate=False)
    assert torch.equal(alone.sums(values), values[alone.order])
