import pytest
import torch
from torch import Tensor

from dist_s2s.models import LSTMEncoderDecoder
from dist_s2s.models.ngram_gate import NgramGate

E, D, ORDERS = 6, 3, 2


def make_gate(dropout: float = 0.0) -> NgramGate:
    torch.manual_seed(0)
    gate = NgramGate(E, D, ORDERS, dropout).double()
    for norm in (gate.token_norm, gate.key_norm):
        torch.nn.init.uniform_(norm.weight)
    return gate


def rows() -> tuple[Tensor, Tensor]:
    """[4, 5, E] of tokens and [4, 5, ORDERS * D] of n-grams."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(4, 5, n, dtype=torch.float64, generator=generator) for n in (E, ORDERS * D))


def normed(vector: Tensor, weight: Tensor) -> Tensor:
    return vector / (vector.square().mean() + 1e-6).sqrt() * weight


def test_one_position_by_hand() -> None:
    gate, (tokens, ngrams) = make_gate(), rows()
    token, ngram = tokens[1, 2], ngrams[1, 2]
    match = normed(token, gate.token_norm.weight) @ normed(gate.key.weight @ ngram, gate.key_norm.weight)
    expected = token + torch.sigmoid(match / E**0.5) * (gate.value.weight @ ngram)
    found = gate(torch.cat((tokens, ngrams), dim=-1))
    torch.testing.assert_close(found[1, 2], expected, rtol=0, atol=1e-12)


def test_ngrams_that_were_never_trained_add_nothing_but_learn() -> None:
    gate, (tokens, _) = make_gate(), rows()
    ngrams = torch.zeros(4, 5, ORDERS * D, dtype=torch.float64, requires_grad=True)
    found = gate(torch.cat((tokens, ngrams), dim=-1))
    assert torch.equal(found, tokens)
    (gradient,) = torch.autograd.grad(found.sum(), ngrams)
    torch.testing.assert_close(gradient[0, 0], 0.5 * gate.value.weight.sum(0), rtol=0, atol=1e-9)


def test_dropout_leaves_out_whole_ngrams_in_training_alone() -> None:
    gate, (tokens, ngrams) = make_gate(dropout=0.4), rows()
    joined = torch.cat((tokens, ngrams), dim=-1).repeat(200, 1, 1)
    seen: list[Tensor] = []
    gate.value.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    gate(joined)
    gate.eval()(joined)
    trained, evaluated = (values.unflatten(-1, (ORDERS, D)) for values in seen)
    kept = (trained != 0).any(-1)
    assert torch.equal(trained, evaluated * kept[..., None])
    assert kept.double().mean().item() == pytest.approx(0.6, abs=0.05)
    assert torch.equal(seen[1], joined[..., E:])


def test_a_model_with_ngrams_begins_as_the_one_without() -> None:
    sizes = {"output": torch.nn.Identity(), "embedding_dim": E, "hidden_size": 8}
    torch.manual_seed(3)
    plain = LSTMEncoderDecoder(**sizes)
    torch.manual_seed(3)
    gated = LSTMEncoderDecoder(**sizes, ngram_dim=D, num_ngrams=ORDERS)
    source, lengths, target = torch.randn(4, 5, E), torch.tensor([5, 1, 3, 2]), torch.randn(4, 3, E)
    joined = torch.cat((source, torch.zeros(4, 5, ORDERS * D)), dim=-1)
    assert torch.equal(gated(joined, lengths, target), plain(source, lengths, target))
