"""Layers with int8 weights compute what those of float32 do, up to their rounding, for each row by itself."""

import pytest
import torch
from torch import Tensor, nn

from dist_s2s.models import LSTMEncoderDecoder, int8
from dist_s2s.models.int8 import Int8Linear, Int8LSTM, load_int8, weight_names, why_not_int8
from dist_s2s.storage.quantization import SCALE, dequantize, from_words, quantize, to_words, words_per_row


@pytest.fixture(params=[False, True], ids=["engine", "fallback"], autouse=True)
def without_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once with what this machine has, once as on one without its engine."""
    if request.param:
        monkeypatch.setattr(int8, "_ENGINE", "other")
    why_not_int8.cache_clear()
    return bool(request.param)


def quantized(model: nn.Module) -> dict[str, Tensor]:
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    for name in weight_names(model):
        tensors[name], tensors[f"{name}.{SCALE}"] = quantize(tensors[name])
    return tensors


def test_the_reason_is_told(without_engine: bool) -> None:
    if without_engine:
        assert why_not_int8() == "this build of torch has no other"
    else:
        assert (why_not_int8() is None) == ("fbgemm" in torch.backends.quantized.supported_engines)


@pytest.mark.parametrize(("inputs", "outputs", "rows"), [(7, 3, 1), (64, 131, 5), (130, 1, 40)])
def test_a_linear_layer_is_off_by_its_rounding_at_most(inputs: int, outputs: int, rows: int) -> None:
    torch.manual_seed(0)
    layer, input_NI = nn.Linear(inputs, outputs), torch.randn(2, rows, inputs) * 10
    input_NI[0, 0] = 0.0
    codes, scale = quantize(layer.weight.detach())
    smaller = Int8Linear(codes, scale, layer.bias.detach())
    found, some = smaller(input_NI), torch.tensor([outputs - 1, 0])
    torch.testing.assert_close(smaller.select(some)(input_NI), found[..., some], rtol=1e-6, atol=1e-5)
    largest = input_NI.abs().amax(-1, keepdim=True)
    of_weights = input_NI.abs().sum(-1, keepdim=True) * scale / 2
    of_inputs = largest / 126 * dequantize(codes, scale).abs().sum(1)
    assert found.shape == (2, rows, outputs)
    assert bool(((found - layer(input_NI)).abs() <= of_weights + of_inputs + 1e-5 * largest + 1e-6).all())
    assert torch.equal(found[0, 0], layer.bias)


@pytest.mark.parametrize("settings", [{}, {"layer_norm": True, "attention": "additive", "num_layers": 2}])
@torch.no_grad()
def test_a_model_computes_the_same_by_steps_and_whatever_the_batch(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = LSTMEncoderDecoder(nn.Linear(16, 31), 12, 16, input_feeding=True, **settings).eval()  # type: ignore[arg-type]
    with torch.device("meta"):
        smaller = LSTMEncoderDecoder(nn.Linear(16, 31), 12, 16, input_feeding=True, **settings)  # type: ignore[arg-type]
    load_int8(smaller.eval(), quantized(model))
    assert isinstance(smaller.output, Int8Linear)
    assert isinstance(smaller.decoder.layers[0], Int8LSTM)
    source, lengths, target = torch.randn(3, 5, 12), torch.tensor([5, 1, 3]), torch.randn(3, 4, 12)
    found = smaller(source, lengths, target)
    assert torch.allclose(found, model(source, lengths, target), atol=0.1)
    encoding, state = smaller.encode(source, lengths)
    for position in range(4):
        outputs, state = smaller.step(target[:, position], state, encoding)
        assert torch.allclose(outputs, found[:, position], atol=1e-5)
    alone = smaller(source[2:, :3], lengths[2:], target[2:])
    assert torch.allclose(alone, found[2:], atol=1e-5)


def test_other_tensors_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    tensors = quantized(model)
    del tensors["0.weight.scale"]
    with pytest.raises(KeyError, match=r"0\.weight\.scale"):
        load_int8(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), tensors)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_int8(nn.Sequential(nn.Linear(4, 4)), quantized(model))
    tensors = quantized(model) | {"0.weight": torch.ones(4, 4)}
    with pytest.raises(RuntimeError, match=r"0\.weight is float32 4 x 4, not int8 4 x 4"):
        load_int8(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), tensors)


@pytest.mark.parametrize("dim", [1, 2, 4, 12, 131])
def test_rows_as_words_are_the_same_rows(dim: int) -> None:
    rows = torch.randn(9, dim) * 10.0 ** torch.arange(-20, 16, 4)[:, None]
    rows[0] = 0.0
    codes, scale = quantize(rows)
    words = to_words(codes, scale)
    assert words.shape == (9, words_per_row(dim))
    found = from_words(words.index_select(0, torch.arange(9)).view(3, 3, -1), dim)
    assert torch.equal(found.view(9, dim), dequantize(codes, scale))
    assert bool(((dequantize(codes, scale) - rows).abs() <= 0.501 * scale[:, None]).all())


def test_an_engine_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "_ENGINE", torch.backends.quantized.supported_engines[0])
    monkeypatch.setattr(int8, "_pack", lambda codes, scale: None)
    monkeypatch.setattr(int8, "_multiply", lambda input_NI, packed: input_NI.sum(-1, keepdim=True))
    assert str(why_not_int8()).endswith(" computes something else here")
    why_not_int8.cache_clear()
