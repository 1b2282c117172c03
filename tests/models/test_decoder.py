import pytest
import torch
from torch import Tensor

from dist_s2s.models.attention import AttentionName
from dist_s2s.models.decoder import Decoder
from dist_s2s.models.dropout import DropoutRates
from dist_s2s.models.encoder import Encoding

B, T, S, E, H = 3, 5, 4, 6, 8


def make_decoder(num_layers: int, attention: AttentionName = "dot", input_feeding: bool = False) -> Decoder:
    torch.manual_seed(0)
    return Decoder(E, H, num_layers, DropoutRates(), attention, input_feeding).double()


def make_inputs() -> tuple[Tensor, Encoding]:
    torch.manual_seed(1)
    mask = torch.arange(S) < torch.tensor([4, 2, 1])[:, None]
    encoding = Encoding(torch.randn(B, S, H).double(), mask, torch.randn(B, H).double())
    return torch.randn(B, T, E).double(), encoding


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("input_feeding", [False, True])
@pytest.mark.parametrize("attention", ["none", "dot", "general", "additive"])
def test_whole_target_is_the_same_as_step_by_step(
    num_layers: int, attention: AttentionName, input_feeding: bool
) -> None:
    decoder, (target, encoding) = make_decoder(num_layers, attention, input_feeding), make_inputs()
    whole, whole_state = decoder(target, decoder.initial_state(encoding), encoding)
    assert whole.shape == (B, T, H)
    state, steps = decoder.initial_state(encoding), []
    for position in range(T):
        part, after = decoder(target[:, position : position + 1], state, encoding)
        step, state = decoder.step(target[:, position], state, encoding)
        torch.testing.assert_close((part[:, 0], after), (step, state), rtol=0, atol=1e-12)
        steps.append(step)
    torch.testing.assert_close(torch.stack(steps, dim=1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, whole_state, rtol=0, atol=1e-12)


@pytest.mark.parametrize("input_feeding", [False, True])
def test_no_state_depends_on_later_tokens(input_feeding: bool) -> None:
    decoder, (target, encoding) = make_decoder(2, input_feeding=input_feeding), make_inputs()
    changed = target.clone()
    changed[:, 3:] += 1
    before, _ = decoder(target, decoder.initial_state(encoding), encoding)
    after, _ = decoder(changed, decoder.initial_state(encoding), encoding)
    same = (before - after).abs().amax(dim=(0, 2)) < 1e-12
    assert same.tolist() == [True, True, True, False, False]


def test_input_feeding_reads_the_previous_attentional_state() -> None:
    decoder, (target, encoding) = make_decoder(1, input_feeding=True), make_inputs()
    state = decoder.initial_state(encoding)
    assert state.attentional_BH.count_nonzero() == 0
    step, after = decoder(target[:, :1], state, encoding)
    assert torch.equal(after.attentional_BH, step[:, 0])
    second, _ = decoder(target[:, 1:2], after, encoding)
    without, _ = decoder(target[:, 1:2], after._replace(attentional_BH=state.attentional_BH), encoding)
    assert not torch.allclose(second, without)


def test_one_step_is_luongs_formula() -> None:
    decoder, (target, encoding) = make_decoder(1, attention="none"), make_inputs()
    start = decoder.initial_state(encoding)
    bridged = torch.tanh(encoding.summary_BH @ decoder.bridge.weight.T + decoder.bridge.bias)
    torch.testing.assert_close(start.hidden_LBH[0], bridged, rtol=0, atol=1e-12)
    attentional, after = decoder(target[:, :1], start, encoding)
    _, (hidden, cell) = decoder.layers[0](target[:, :1], (bridged[None], torch.zeros(1, B, H).double()))
    joined = torch.cat((encoding.summary_BH, hidden[0]), dim=-1)
    expected = torch.tanh(joined @ decoder.combine.weight.T + decoder.combine.bias)
    torch.testing.assert_close(attentional[:, 0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close((after.hidden_LBH, after.cell_LBH), (hidden, cell), rtol=0, atol=1e-12)


def test_each_layer_starts_from_its_own_part_of_the_bridge() -> None:
    decoder, (_, encoding) = make_decoder(2), make_inputs()
    lower, upper = torch.tanh(decoder.bridge(encoding.summary_BH)).split(H, dim=-1)
    assert torch.equal(decoder.initial_state(encoding).hidden_LBH, torch.stack((lower, upper)))


def test_select_reorders_and_repeats_sentences() -> None:
    decoder, (target, encoding) = make_decoder(2, input_feeding=True), make_inputs()
    _, state = decoder(target, decoder.initial_state(encoding), encoding)
    rows = torch.tensor([2, 0, 0, 1])
    selected = state.select(rows)
    for place, row in enumerate(rows.tolist()):
        assert torch.equal(selected.hidden_LBH[:, place], state.hidden_LBH[:, row])
        assert torch.equal(selected.cell_LBH[:, place], state.cell_LBH[:, row])
        assert torch.equal(selected.attentional_BH[place], state.attentional_BH[row])
