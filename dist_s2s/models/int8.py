"""Layers whose weights are int8: a quarter of the memory, and faster on a CPU.

A weight is a row of int8 codes for each output, times the row's scale. Each row of an input is divided by its largest
magnitude and rounded to seven bits, which is what processors without VNNI multiply without overflow. Sums are int32, so
what becomes of one sentence never depends on the others in its batch.

The products are FBGEMM's. It is in the wheels of torch for x86, behind operators that torch may give up some day. Where
they are not to be had, as on other processors and on GPUs, weights become float32 again.
"""

import warnings
from collections.abc import Iterator, MutableMapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dist_s2s.models.decoder import DecoderLSTM

# Shapes: N rows, O outputs, I inputs, B sentences, T positions, H hidden_size, G = 4 H gates.

Packed = Any  # an object of torch.classes, of FBGEMM's own
Quantized = tuple[Tensor, Tensor]  # codes, int8 [O, I], and scales, float32 [O]
_ENGINE = "fbgemm"
_TINY = torch.finfo(torch.float32).tiny
_STEP, _ZERO = 1 / 63, 64  # of inputs in [-1, 1], as seven bits without a sign


class Int8Linear(nn.Module):
    """nn.Linear with int8 weights, and without gradients.

    Args:
        codes_OI: int8.
        scale_O: of the codes, float32.
        bias_O: float32 or None.
    """

    def __init__(self, codes_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = codes_OI.shape
        self._packed, self._bias = _packed(codes_OI, scale_O), bias_O
        self._quantized = (codes_OI, scale_O) if self._packed is None else None
        if self._packed is None:
            self._weight_OI = codes_OI * scale_O[:, None]

    def forward(self, input_I: Tensor) -> Tensor:
        """Return [..., O] of [..., I]."""
        if self._packed is None:
            return linear(input_I, self._weight_OI, self._bias)
        largest_1 = torch.linalg.vector_norm(input_I, float("inf"), dim=-1, keepdim=True).clamp_(min=_TINY)
        output_O = _multiply(input_I / largest_1, self._packed)
        return output_O.mul_(largest_1) if self._bias is None else torch.addcmul(self._bias, output_O, largest_1)

    def select(self, outputs_U: Tensor) -> "Int8Linear":
        """Return the layer of some of its outputs, int64 [U], which computes the same of each.

        From the first call on, the codes are kept once more, as they were before FBGEMM had them.
        """
        if self._quantized is None:
            self._quantized = _unpacked(self._packed)
        codes_OI, scale_O = self._quantized
        bias_U = None if self._bias is None else self._bias[outputs_U]
        return Int8Linear(codes_OI[outputs_U], scale_O[outputs_U], bias_U)


class StoredLSTM(nn.Module):
    """A layer of nn.LSTM with ``batch_first`` that keeps its weights as int8, and makes float32 of them at each call.

    For whole sentences: torch's fused layer is faster than a product with int8 and the gates at each position.
    """

    def __init__(self, from_input: Quantized, from_hidden: Quantized, bias_G: Tensor) -> None:
        super().__init__()
        self._weights, self._bias_G = (from_input, from_hidden), bias_G

    def forward(self, input_BTI: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs [B, T, H] and the last states, [1, B, H] each."""
        weights = [codes * scale[:, None] for codes, scale in self._weights]
        zeros_1BH = input_BTI.new_zeros(1, len(input_BTI), weights[1].shape[1])
        weights += [self._bias_G, torch.zeros_like(self._bias_G)]
        outputs_BTH, hidden_1BH, cell_1BH = torch.lstm(
            input_BTI, (zeros_1BH, zeros_1BH), weights, True, 1, 0.0, False, False, True
        )
        return outputs_BTH, (hidden_1BH, cell_1BH)


class Int8LSTM(nn.Module):
    """A DecoderLSTM of two int8 layers, whose biases are in the first."""

    def __init__(self, from_input: Int8Linear, from_hidden: Int8Linear) -> None:
        super().__init__()
        self.from_input, self.from_hidden = from_input, from_hidden

    def forward(self, input_BTI: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs [B, T, H] and the last states, from those before, [1, B, H] each."""
        hidden_BH, cell_BH = state[0][0], state[1][0]
        outputs = []
        for gates_BG in self.from_input(input_BTI).unbind(1):
            hidden_BH, cell_BH = _cell(gates_BG + self.from_hidden(hidden_BH), cell_BH)
            outputs.append(hidden_BH)
        return torch.stack(outputs, dim=1), (hidden_BH[None], cell_BH[None])

    def step(self, input_BI: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return hidden and cell state [B, H] after one more position."""
        hidden_BH, cell_BH = state
        return _cell(self.from_input(input_BI).add_(self.from_hidden(hidden_BH)), cell_BH)


@cache
def why_not_int8() -> str | None:
    """Return why int8 layers compute with float32 weights on the CPU; None if they compute with int8."""
    if _ENGINE not in torch.backends.quantized.supported_engines:
        return f"this build of torch has no {_ENGINE}"
    codes_OI, scale_O, input_NI = (
        torch.tensor([[127, -127]], dtype=torch.int8),
        torch.ones(1),
        torch.tensor([[1.0, -1]]),
    )
    try:
        output_NO = _multiply(input_NI, _pack(codes_OI, scale_O))
    except (RuntimeError, AttributeError) as error:
        return f"this version of torch does not offer {_ENGINE}'s operators ({str(error).splitlines()[0]})"
    return None if round(output_NO.item(), 3) == 254 else f"{_ENGINE} computes something else here"


def _packed(codes_OI: Tensor, scale_O: Tensor) -> Packed | None:
    """Return the weights as FBGEMM wants them; None if that is not possible here."""
    return _pack(codes_OI, scale_O) if codes_OI.device.type == "cpu" and why_not_int8() is None else None


def _pack(codes_OI: Tensor, scale_O: Tensor) -> Packed:
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():  # torch tells of its plans for quantised tensors, once
        warnings.simplefilter("ignore")
        zero_O = torch.zeros(len(scale_O), dtype=torch.int64)
        weight_OI = torch._make_per_channel_quantized_tensor(codes_OI, scale_O.double(), zero_O, 0)
    torch.backends.quantized.engine = _ENGINE
    try:
        packed: Packed = torch.ops.quantized.linear_prepack(weight_OI, None)
    finally:
        torch.backends.quantized.engine = before
    return packed


def _unpacked(packed: Packed) -> Quantized:
    weight_OI, _ = torch.ops.quantized.linear_unpack(packed)
    return weight_OI.int_repr(), weight_OI.q_per_channel_scales().float()


def _multiply(input_I: Tensor, packed: Packed) -> Tensor:
    """Return the products [..., O] of inputs [..., I] in [-1, 1]."""
    output_O: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(input_I, _STEP, _ZERO, packed)
    return output_O


def weight_names(model: nn.Module) -> Iterator[str]:
    """Yield the names of the weights that ``load_int8`` wants as int8: those of all nn.Linear and nn.LSTM."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield f"{name}.weight"
        elif isinstance(module, nn.LSTM):
            yield from (f"{name}.weight_ih_l0", f"{name}.weight_hh_l0")


def load_int8(model: nn.Module, tensors: MutableMapping[str, Tensor]) -> None:
    """Put int8 layers into the place of all nn.Linear and nn.LSTM, and load the rest.

    Args:
        model: may be on the meta device.
        tensors: its state_dict with weights as int8, and their scales as NAME.scale.

    Raises:
        KeyError: for a tensor that is missing.
        RuntimeError: if tensors are left over, or of a wrong shape or dtype.
    """

    def take(weight: str) -> Quantized:
        codes, scale, shape = tensors.pop(weight), tensors.pop(f"{weight}.scale"), model.get_parameter(weight).shape
        for tensor, dtype, right in ((codes, torch.int8, shape), (scale, torch.float32, shape[:1])):
            if (tensor.dtype, tensor.shape) != (dtype, right):
                raise RuntimeError(
                    f"\n{weight} is {_described(tensor.dtype, tensor.shape)}, not {_described(dtype, right)}"
                )
        return codes, scale

    for name, module in list(model.named_modules()):
        layer: nn.Module
        if isinstance(module, nn.Linear):
            layer = Int8Linear(*take(f"{name}.weight"), None if module.bias is None else tensors.pop(f"{name}.bias"))
        elif isinstance(module, nn.LSTM):
            bias = tensors.pop(f"{name}.bias_ih_l0") + tensors.pop(f"{name}.bias_hh_l0")
            from_input, from_hidden = take(f"{name}.weight_ih_l0"), take(f"{name}.weight_hh_l0")
            if isinstance(module, DecoderLSTM):
                layer = Int8LSTM(Int8Linear(*from_input, bias), Int8Linear(*from_hidden, None))
            else:
                layer = StoredLSTM(from_input, from_hidden, bias)
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    model.load_state_dict(tensors, assign=True)


def _described(dtype: torch.dtype, shape: torch.Size) -> str:
    return f"{str(dtype).removeprefix('torch.')} {' x '.join(map(str, shape))}"


def _cell(gates_BG: Tensor, cell_BH: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden and cell state [B, H] of one position, from its gates before their functions, in torch's order."""
    taken_BX, new_BH, shown_BH = gates_BG.tensor_split([2 * cell_BH.shape[1], 3 * cell_BH.shape[1]], dim=1)
    input_BH, forget_BH = taken_BX.sigmoid().chunk(2, dim=1)
    cell_BH = torch.addcmul(forget_BH * cell_BH, input_BH, new_BH.tanh())
    return shown_BH.sigmoid() * cell_BH.tanh(), cell_BH
