"""The moving average of weights: what is followed lazily is what the dense formula gives."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding, SparseAdam
from dist_s2s.sharded.averaging import Decay, MovingAverage

CLOSE = {"rtol": 1e-12, "atol": 1e-13}


@given(
    decay=st.floats(0.01, 0.99999),
    first=st.integers(0, 300_000),
    count=st.integers(0, 60),
)
def test_the_product_of_decays_has_a_closed_form(decay: float, first: int, count: int) -> None:
    """Also where it passes from the growing decay to the constant one."""
    rule = Decay(decay)
    near = max(0, rule.growing - count // 2) if first % 2 else first
    expected = torch.tensor([rule.at(update) for update in range(near + 1, near + count + 1)], dtype=torch.float64)
    found = rule.since(torch.tensor([near], dtype=torch.int32), near + count)
    torch.testing.assert_close(found[0], expected.prod(), rtol=1e-9, atol=0)
    assert [rule.at(update) for update in (1, 2)] == [min(decay, 2 / 11), min(decay, 3 / 12)]


def make_model() -> tuple[nn.Linear, DistributedEmbedding, torch.optim.Optimizer, torch.optim.Optimizer]:
    torch.manual_seed(1)
    linear, table = nn.Linear(3, 2).double(), DistributedEmbedding(131, 3, padding_idx=0, dtype=torch.float64)
    return linear, table, torch.optim.Adam(linear.parameters(), lr=0.1), SparseAdam([table.weight], lr=0.1)


def updates(count: int, *, dense_at: int | None = None) -> Iterator[tuple[MovingAverage, list[Tensor], list[Tensor]]]:
    """Yields after each update the average, the weights, and their averages by the dense formula."""
    linear, table, *optimizers = make_model()
    weights = [*linear.parameters(), table.weight]
    average = MovingAverage(linear.parameters(), [table.weight], 0.8)
    dense = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(2)
    for number in range(1, count + 1):
        ids = torch.randint(0, 131, (2, 2), generator=generator)
        linear(table(ids)).square().sum().backward()
        if number == dense_at:
            table.weight.grad = table.weight.grad.to_dense()
        with average.following():
            for optimizer in optimizers:
                optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        kept = min(0.8, (1 + number) / (10 + number))
        dense = [old * kept + weight.detach() * (1 - kept) for old, weight in zip(dense, weights, strict=True)]
        yield average, weights, dense


@pytest.mark.parametrize("dense_at", [None, 20])
def test_rows_are_followed_exactly_though_lazily(dense_at: int | None) -> None:
    """Whether their averages have been looked at in between or not, and also after a gradient of all rows."""
    for number, (average, weights, dense) in enumerate(updates(60, dense_at=dense_at), start=1):
        if number in (1, 7, 40, 60):
            before = [weight.detach().clone() for weight in weights]
            with average.in_place():
                torch.testing.assert_close([weight.detach() for weight in weights], dense, **CLOSE)
            assert all(map(torch.equal, before, weights))
        if number == 6:
            assert len(average.known[weights[-1]].unique()) > 4  # rows lag behind by different counts


def test_looking_twice_changes_nothing() -> None:
    for average, weights, _ in updates(5):
        looks = []
        for _ in range(2):
            with average.in_place():
                looks.append([weight.detach().clone() for weight in weights])
        assert all(map(torch.equal, *looks))


def test_an_average_that_was_saved_goes_on_bit_by_bit() -> None:
    """The rows that lag behind too."""
    whole = [(average, weights) for average, weights, _ in updates(9)]
    for number, (average, _, _) in enumerate(updates(9), start=1):
        if number == 5:
            saved = [
                {weight: value.clone() for weight, value in found.items()}
                for found in (average.averages, average.known)
            ]
            for values in (*average.averages.values(), *average.known.values()):
                values.fill_(7)
            average.load(5, *saved)
    expected = list(whole[-1][0].averages.values())
    assert all(map(torch.equal, expected, average.averages.values()))
    assert all(map(torch.equal, whole[-1][0].known.values(), average.known.values()))
    assert len(expected) == 3


def test_what_does_not_learn_has_no_average_and_narrow_weights_are_refused() -> None:
    linear, table, _, _ = make_model()
    linear.bias.requires_grad_(False)
    average = MovingAverage(linear.parameters(), [table.weight], 0.9)
    with average.in_place():  # nothing to look at before the first update
        pass
    with average.following():
        pass
    assert list(average.averages) == [linear.weight, table.weight]
    with pytest.raises(ValueError, match=r"needs weights in float32 or float64, but some are torch\.bfloat16"):
        MovingAverage([], [torch.zeros(2, 2, dtype=torch.bfloat16)], 0.9)


def test_rows_begin_anew() -> None:
    average, weights, _ = list(updates(6))[-1]
    table = weights[-1]
    table.data[[3, 130]] = 5.0
    average.restart_rows(table, torch.tensor([3, 130]))
    with average.in_place():
        assert table[[3, 130]].eq(5).all()
        assert not table[[4, 129]].eq(5).any()
