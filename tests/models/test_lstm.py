from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dist_s2s.models import LSTMEncoderDecoder, beam_search, best_of_logits
from dist_s2s.models.attention import AttentionName

V, E, H = 11, 6, 8
LENGTHS = torch.tensor([3, 7, 1, 5])
every_attention = pytest.mark.parametrize("attention", ["none", "dot", "general", "additive"])
with_and_without_feeding = pytest.mark.parametrize("input_feeding", [False, True])


def make_model(attention: AttentionName, num_layers: int = 1, input_feeding: bool = False) -> LSTMEncoderDecoder:
    torch.manual_seed(0)
    return LSTMEncoderDecoder(
        nn.Linear(H, V), E, H, num_layers, attention=attention, input_feeding=input_feeding
    ).double()


def make_inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, 7, E).double(), torch.randn(4, 6, E).double()


@every_attention
@with_and_without_feeding
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_sentences_logits_do_not_depend_on_its_batch(
    attention: AttentionName, input_feeding: bool, num_layers: int
) -> None:
    model, (source, target) = make_model(attention, num_layers, input_feeding), make_inputs()
    together = model(source, LENGTHS, target)
    assert together.shape == (4, 6, V)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(source[row : row + 1, :length], LENGTHS[row : row + 1], target[row : row + 1, : 2 + row])
        torch.testing.assert_close(together[row, : 2 + row], alone[0], rtol=0, atol=1e-12)


@every_attention
@with_and_without_feeding
def test_outputs_of_steps_are_those_of_forward(attention: AttentionName, input_feeding: bool) -> None:
    model, (source, target) = make_model(attention, 2, input_feeding), make_inputs()
    encoding, state = model.encode(source, LENGTHS)
    steps = []
    for position in range(target.shape[1]):
        outputs, state = model.step(target[:, position], state, encoding)
        steps.append(outputs)
    torch.testing.assert_close(torch.stack(steps, dim=1), model(source, LENGTHS, target), rtol=0, atol=1e-12)


@with_and_without_feeding
def test_deep_normalised_models_of_other_sizes(input_feeding: bool) -> None:
    """A sentence's outputs depend neither on its batch nor on whether they are taken step by step."""
    torch.manual_seed(0)
    sizes = {
        "encoder_layers": 3,
        "decoder_layers": 2,
        "readout_size": 5,
        "embedding_scale": 2.0,
        "layer_norm": True,
        "lexical": True,
    }
    model = LSTMEncoderDecoder(nn.Linear(5, V), E, H, input_feeding=input_feeding, **sizes).double()
    assert (len(model.encoder.forward_layers), len(model.decoder.layers)) == (3, 2)
    source, target = make_inputs()
    together = model(source, LENGTHS, target)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, some = slice(row, row + 1), 2 + row
        encoding, state = model.encode(source[alone, :length], LENGTHS[alone])
        for position in range(some):
            outputs, state = model.step(target[alone, position], state, encoding)
            torch.testing.assert_close(together[alone, position], outputs, rtol=0, atol=1e-12)
    unscaled = LSTMEncoderDecoder(
        nn.Linear(5, V), E, H, input_feeding=input_feeding, **sizes | {"embedding_scale": 1.0}
    )
    unscaled.double().load_state_dict(model.state_dict())
    torch.testing.assert_close(unscaled(2 * source, LENGTHS, 2 * target), together, rtol=0, atol=1e-12)


@with_and_without_feeding
@pytest.mark.parametrize("attention", ["dot", "additive"])
def test_the_lexical_model_reads_embeddings_where_attention_looks(
    attention: AttentionName, input_feeding: bool
) -> None:
    torch.manual_seed(0)
    model = LSTMEncoderDecoder(
        nn.Identity(), E, H, attention=attention, input_feeding=input_feeding, readout_size=5, lexical=True
    ).double()
    source, target = make_inputs()
    lexical = model.decoder.lexical
    assert lexical is not None
    seen: list[Tensor] = []
    with lexical.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0])):
        states = model(source, LENGTHS, target)
    weights = model.attention_weights(source, LENGTHS, target)
    torch.testing.assert_close(torch.cat(seen, dim=1), weights @ source, rtol=0, atol=1e-12)
    if not input_feeding:  # which would read it in the next step
        with lexical.register_forward_hook(lambda _, __, added: 0 * added):
            without = model(source, LENGTHS, target)
        torch.testing.assert_close(states - without, lexical(weights @ source, None), rtol=0, atol=1e-12)


def test_a_model_without_options_has_the_parameters_it_always_had() -> None:
    """So that checkpoints from before there were options can be read."""
    lstm = [f"{kind}_{half}_l0" for kind in ("weight", "bias") for half in ("ih", "hh")]
    layers = [f"encoder.{way}_layers.0" for way in ("forward", "backward")] + ["decoder.layers.0"]
    expected = {f"{layer}.{name}" for layer in layers for name in lstm}
    expected |= {
        f"{part}.{name}" for part in ("decoder.bridge", "decoder.combine", "output") for name in ("weight", "bias")
    }
    assert make_model("dot").state_dict().keys() == expected


@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
@with_and_without_feeding
def test_attention_weights_are_those_of_the_steps(attention: AttentionName, input_feeding: bool) -> None:
    model, (source, target) = make_model(attention, 2, input_feeding), make_inputs()
    weights: list[Tensor] = []
    module = model.decoder.attention
    with module.register_forward_hook(lambda _, inputs, __: weights.append(module.weights(*inputs)[:, 0])):
        encoding, state = model.encode(source, LENGTHS)
        for position in range(target.shape[1]):
            _, state = model.step(target[:, position], state, encoding)
    found = model.attention_weights(source, LENGTHS, target)
    torch.testing.assert_close(found, torch.stack(weights, dim=1), rtol=0, atol=1e-12)


def test_with_an_identity_the_outputs_are_what_an_output_table_elsewhere_needs() -> None:
    model, (source, target) = make_model("dot"), make_inputs()
    without = LSTMEncoderDecoder(nn.Identity(), E, H).double()
    without.load_state_dict({name: value for name, value in model.state_dict().items() if "output" not in name})
    hidden = without(source, LENGTHS, target)
    assert hidden.shape == (4, 6, H)
    assert torch.equal(model.output(hidden), model(source, LENGTHS, target))
    encoding, state = without.encode(source, LENGTHS)
    first, _ = without.step(target[:, 0], state, encoding)
    torch.testing.assert_close(first, hidden[:, 0], rtol=0, atol=1e-12)


@every_attention
@with_and_without_feeding
@pytest.mark.parametrize("num_layers", [1, 2])
def test_gradients_reach_every_parameter_and_every_token(
    attention: AttentionName, input_feeding: bool, num_layers: int
) -> None:
    model, (source, target) = make_model(attention, num_layers, input_feeding), make_inputs()
    source.requires_grad_()
    target.requires_grad_()
    model(source, LENGTHS, target).square().sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    assert target.grad.ne(0).all()
    assert torch.equal(source.grad.ne(0).all(dim=-1), torch.arange(7) < LENGTHS[:, None])
    assert source.grad[torch.arange(7) >= LENGTHS[:, None]].count_nonzero() == 0


def test_a_small_model_learns_to_reverse() -> None:
    """All 3-digit strings over 4 digits but every fifth; then it reverses those too."""
    torch.manual_seed(0)
    pad, sos, eos = 0, 1, 2
    table = nn.Embedding(7, 16)
    model = LSTMEncoderDecoder(nn.Linear(32, 7), 16, 32)
    optimizer = torch.optim.Adam([*model.parameters(), *table.parameters()], lr=1e-2)
    strings = torch.cartesian_prod(*[torch.arange(3, 7)] * 3)
    held_out = torch.arange(len(strings)) % 5 == 0
    lengths = torch.full((len(strings),), 3)
    ends = torch.full((len(strings), 1), eos)
    target_in = torch.cat((torch.full_like(ends, sos), strings.flip(1)), dim=1)
    target_out = torch.cat((strings.flip(1), ends), dim=1)
    for _ in range(150):
        logits = model(table(strings[~held_out]), lengths[~held_out], table(target_in[~held_out]))
        loss = F.cross_entropy(logits.flatten(0, 1), target_out[~held_out].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sources, limits = table(strings), torch.full_like(lengths, 9)
    best_tokens = partial(best_of_logits, forbidden=[pad, sos])
    found = beam_search(model, sources, lengths, table, best_tokens, sos, eos, limits, beam_size=1)
    right = torch.tensor(
        [a == b for a, b in zip([best.ids for [best] in found], strings.flip(1).tolist(), strict=True)]
    )
    assert right[~held_out].all()
    assert right[held_out].float().mean() > 0.7
