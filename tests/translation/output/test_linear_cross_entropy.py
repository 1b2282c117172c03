"""The chunked loss equals F.cross_entropy of the layer's logits, and so do its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dist_s2s.translation.output import linear_cross_entropy as module
from dist_s2s.translation.output.linear_cross_entropy import linear_cross_entropy

V, H, PAD = 131, 12, 0


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four tokens each."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * V)


def problem(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, Tensor, Tensor]:
    layer = nn.Linear(H, V).to(dtype)
    hidden = torch.randn(3, 5, H, dtype=dtype, requires_grad=True)
    return layer, hidden, torch.randint(0, V, (3, 5)).index_fill_(1, torch.tensor([4]), PAD)


def gradients(loss: Tensor, layer: nn.Linear, hidden: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(0.3 * loss, [hidden, layer.weight, layer.bias]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_and_gradients_are_those_of_cross_entropy(smoothing: float) -> None:
    layer, hidden, target = problem()
    loss = linear_cross_entropy(layer, hidden, target, PAD, smoothing)
    expected = F.cross_entropy(
        layer(hidden).flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-9)
    pairs = zip(gradients(loss, layer, hidden), gradients(expected, layer, hidden), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


def test_without_any_token_that_counts_the_loss_and_its_gradients_are_zero() -> None:
    layer, hidden, target = problem()
    loss = linear_cross_entropy(layer, hidden, torch.full_like(target, PAD), PAD, 0.1)
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients(loss, layer, hidden))


def test_under_autocast_sums_are_float32() -> None:
    layer, hidden, target = problem(torch.float32)
    expected = linear_cross_entropy(layer, hidden, target, PAD)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(layer, hidden, target, PAD)
    assert loss.dtype == torch.float32
    assert loss != expected
    torch.testing.assert_close(loss, expected, rtol=2**-7, atol=0)
    assert [gradient.dtype for gradient in gradients(loss, layer, hidden)] == [torch.float32] * 3


def test_large_logits_do_not_overflow() -> None:
    layer, hidden, target = problem(torch.float32)
    assert linear_cross_entropy(layer, 1e4 * hidden, target, PAD).isfinite()


def test_no_gradients_are_computed_where_none_are_wanted() -> None:
    layer, hidden, target = problem()
    with torch.no_grad():
        loss = linear_cross_entropy(layer, hidden, target, PAD)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, linear_cross_entropy(layer, hidden, target, PAD).detach(), rtol=0, atol=0)


def test_a_second_backward_is_refused() -> None:
    layer, hidden, target = problem()
    loss = linear_cross_entropy(layer, hidden, target, PAD)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can run only once"):
        loss.backward()
