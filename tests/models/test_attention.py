import pytest
import torch
from torch import Tensor, nn

from dist_s2s.models import attention as attention_module
from dist_s2s.models.attention import AttentionName, make_attention
from dist_s2s.models.encoder import Encoding, make_norms

B, T, S, H = 3, 4, 6, 5
LENGTHS = (6, 1, 4)


def make_encoding() -> Encoding:
    memory = torch.randn(B, S, H, dtype=torch.float64)
    mask = torch.arange(S) < torch.tensor(LENGTHS)[:, None]
    return Encoding(memory, mask, torch.randn(B, H, dtype=torch.float64))


def score(attention: nn.Module, name: AttentionName, query: Tensor, key: Tensor) -> Tensor:
    """The score of one state and one source position, as the papers write it."""
    if name == "dot":
        return torch.dot(query, key)
    if name == "general":
        return torch.dot(query, attention.key.weight @ key)
    inner = attention.query.weight @ query + attention.query.bias + attention.key.weight @ key
    return torch.dot(attention.score.weight[0], torch.tanh(inner))


@pytest.mark.parametrize("name", ["dot", "general", "additive"])
def test_contexts_are_those_of_the_formula_over_real_tokens_alone(name: AttentionName) -> None:
    attention, encoding = make_attention(name, H).double(), make_encoding()
    query = torch.randn(B, T, H, dtype=torch.float64)
    contexts = attention(query, encoding)
    assert contexts.shape == (B, T, H)
    for row, length in enumerate(LENGTHS):
        keys = encoding.memory_BSH[row, :length]
        for step in range(T):
            scores = [score(attention, name, query[row, step], key) for key in keys]
            weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
            expected = sum(weight * key for weight, key in zip(weights, keys, strict=True))
            torch.testing.assert_close(contexts[row, step], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["none", "dot", "general", "additive"])
def test_padding_has_no_weight(name: AttentionName) -> None:
    attention, encoding = make_attention(name, H).double(), make_encoding()
    query = torch.randn(B, T, H, dtype=torch.float64)
    noise = torch.where(encoding.mask_BS[:, :, None], encoding.memory_BSH, 1e6)
    assert torch.equal(attention(query, encoding), attention(query, encoding._replace(memory_BSH=noise)))


@pytest.mark.parametrize("name", ["dot", "general", "additive"])
def test_weights_are_those_of_the_contexts(name: AttentionName) -> None:
    attention, encoding = make_attention(name, H).double(), make_encoding()
    query = torch.randn(B, T, H, dtype=torch.float64)
    weights = attention.weights(query, encoding)
    assert weights.masked_select(~encoding.mask_BS[:, None]).count_nonzero() == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T, dtype=torch.float64))
    torch.testing.assert_close(weights @ encoding.memory_BSH, attention(query, encoding), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["dot", "general", "additive"])
def test_no_gradient_reaches_padding(name: AttentionName) -> None:
    attention, encoding = make_attention(name, H).double(), make_encoding()
    encoding.memory_BSH.requires_grad_()
    attention(torch.randn(B, T, H, dtype=torch.float64), encoding).square().sum().backward()
    assert torch.equal(encoding.memory_BSH.grad.ne(0).all(dim=-1), encoding.mask_BS)
    assert encoding.memory_BSH.grad[~encoding.mask_BS].count_nonzero() == 0


def test_without_attention_every_state_sees_the_encoders_last_states() -> None:
    encoding = make_encoding()
    contexts = make_attention("none", H)(torch.randn(B, T, H, dtype=torch.float64), encoding)
    assert torch.equal(contexts, torch.stack([encoding.summary_BH] * T, dim=1))


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_without_gradients_long_targets_are_looked_at_in_parts(
    kind: AttentionName, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    attention, query = make_attention(kind, 8).double(), torch.randn(2, 11, 8, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    encoding = Encoding(torch.randn(2, 5, 8, dtype=torch.float64), mask, torch.zeros(2, 8, dtype=torch.float64))
    whole = attention(query, encoding)
    monkeypatch.setattr("dist_s2s.models.attention.NUMBERS_AT_A_TIME", 35 if kind != "additive" else 35 * 8)
    sizes: list[int] = []
    weighted_sum = attention_module._weighted_sum

    def spy(scores: torch.Tensor, encoding: Encoding) -> torch.Tensor:
        sizes.append(scores.shape[1])
        return weighted_sum(scores, encoding)

    monkeypatch.setattr(attention_module, "_weighted_sum", spy)
    with torch.no_grad():
        parts = attention(query, encoding)
    assert torch.allclose(parts, whole, rtol=0, atol=1e-14)
    assert sizes == [3, 3, 3, 2]


@pytest.mark.parametrize("hidden_size", [16, 256])
def test_scores_of_normalised_layers_begin_small(hidden_size: int) -> None:
    """Whatever the size, or else attention begins with a single position."""
    (norm,) = make_norms(True, hidden_size, 1)
    queries, keys = norm(torch.randn(2, 500, hidden_size))
    assert 0.8 < (queries * keys).sum(dim=-1).std() < 1.2
