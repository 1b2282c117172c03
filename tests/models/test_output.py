import pytest
import torch
from torch import nn

from dist_s2s.models import best_of_logits
from dist_s2s.models.output import apply_output

V, FORBIDDEN = 131, [0, 7, 130]


def make_logits(dtype: torch.dtype) -> torch.Tensor:
    """The forbidden tokens are the likeliest of all."""
    torch.manual_seed(0)
    logits = torch.randn(5, V, dtype=torch.float64) * 3
    logits[:, FORBIDDEN] += 40
    return logits.to(dtype)


@pytest.mark.parametrize("k", [1, 4, V - len(FORBIDDEN)])
@pytest.mark.parametrize(
    ("dtype", "expected_dtype", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 1e-5),
        (torch.float16, torch.float32, 1e-5),
    ],
)
def test_the_likeliest_allowed_tokens(
    k: int, dtype: torch.dtype, expected_dtype: torch.dtype, tolerance: float
) -> None:
    logits = make_logits(dtype)
    log_probabilities, ids = best_of_logits(logits, k, FORBIDDEN)
    assert (log_probabilities.dtype, ids.dtype) == (expected_dtype, torch.int64)
    assert log_probabilities.shape == ids.shape == (5, k)
    allowed = [token for token in range(V) if token not in FORBIDDEN]
    for row in range(5):
        exponentials = logits[row].double().exp()
        probabilities = {token: float(exponentials[token] / exponentials[allowed].sum()) for token in allowed}
        assert set(ids[row].tolist()) <= set(allowed)
        assert len(set(ids[row].tolist())) == k
        expected = torch.tensor([probabilities[token] for token in ids[row].tolist()], dtype=torch.float64).log()
        torch.testing.assert_close(log_probabilities[row].double(), expected, rtol=0, atol=tolerance)
        falling = torch.tensor(sorted(probabilities.values(), reverse=True)[:k], dtype=torch.float64).log()
        torch.testing.assert_close(log_probabilities[row].double(), falling, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_are_left_as_they_are(dtype: torch.dtype) -> None:
    logits = make_logits(dtype)
    best_of_logits(logits, 2, FORBIDDEN)
    assert torch.equal(logits, make_logits(dtype))


@pytest.mark.parametrize("k", [3, 6, 9])
def test_more_tokens_than_are_allowed(k: int) -> None:
    """Of 6 tokens 2 are allowed, both with probability 1/2."""
    log_probabilities, ids = best_of_logits(torch.zeros(2, 6), k, [0, 2, 3, 5])
    assert log_probabilities.shape == ids.shape == (2, k)
    assert ids[:, :2].sort().values.tolist() == [[1, 4]] * 2
    torch.testing.assert_close(log_probabilities[:, :2].exp(), torch.full((2, 2), 0.5))
    assert log_probabilities[:, 2:].isneginf().all()


def test_no_rows_and_nothing_forbidden() -> None:
    log_probabilities, ids = best_of_logits(torch.empty(0, 6), 2, [])
    assert log_probabilities.shape == ids.shape == (0, 2)
    assert best_of_logits(torch.eye(3), 1, [])[1].tolist() == [[0], [1], [2]]


def test_something_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="forbidden holds all 3 ids of the vocabulary; at least one must be allowed"):
        best_of_logits(torch.zeros(2, 3), 1, [2, 0, 1])


@pytest.mark.parametrize("num_classes", [1, 1024, 1025, 2500])
@pytest.mark.parametrize("has_bias", [False, True])
def test_an_output_layer_in_parts_is_the_whole_one(num_classes: int, has_bias: bool) -> None:
    layer = nn.Linear(3, num_classes, bias=has_bias).double()
    states = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(apply_output(layer, states), layer(states), rtol=0, atol=1e-14)


def test_another_output_layer_is_applied_as_it_is() -> None:
    states = torch.randn(2, 3)
    assert apply_output(nn.Identity(), states) is states
