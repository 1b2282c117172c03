"""Weights in eight bits: each row is int8 codes times a scale of its own.

Checkpoints hold codes and scales as two tensors. The rows of a table are held and exchanged as float32 words, four
codes in each and the scale in the last: a lookup copies rows, and never computes with them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from dist_s2s import UserError

INT8 = "int8"
SCALE = "scale"  # of the rows of "weight" in a table's file; in the model's file "NAME.scale" belongs to "NAME"
_CODES_PER_WORD = 4

# Shapes: N rows, D numbers in a row, W words of a row.


def quantize(weight_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 codes [N, D] and float32 scales [N], with codes · scale off by half a scale at most.

    Codes are in [-127, 127]: the largest magnitude of a row becomes 127.
    """
    scale_N = (weight_ND.abs().amax(dim=1).float() / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight_ND / scale_N[:, None]).round_().to(torch.int8), scale_N


def dequantize(codes_ND: Tensor, scale_N: Tensor) -> Tensor:
    """Return the rows that codes and scales stand for, float32 [N, D]."""
    return codes_ND * scale_N[:, None]


def words_per_row(dim: int) -> int:
    """Return how many float32 words hold a row of so many codes, and its scale."""
    return -(-dim // _CODES_PER_WORD) + 1


def to_words(codes_ND: Tensor, scale_N: Tensor) -> Tensor:
    """Return the words of rows, float32 [N, W], which are not numbers to compute with."""
    codes_NX = pad(codes_ND, (0, -codes_ND.shape[1] % _CODES_PER_WORD))
    return torch.cat((codes_NX.view(torch.float32), scale_N[:, None]), dim=1)


def from_words(words: Tensor, dim: int) -> Tensor:
    """Return the rows [..., D] of words [..., W]."""
    codes = words[..., :-1].contiguous().view(torch.int8)[..., :dim]
    return codes * words[..., -1:]


def check_quantization(checkpoint: Path, manifest: Mapping[str, Any]) -> None:
    """Raise UserError for a checkpoint that is quantised in a way which this version does not know."""
    if manifest.get("quantized") not in (None, INT8):
        raise UserError(f"{checkpoint} is quantised as {manifest['quantized']}, but this version reads only {INT8}")


def refuse_quantized(checkpoint: Path, manifest: Mapping[str, Any], purpose: str) -> None:
    """Raise UserError for a checkpoint that is quantised; purpose: "training goes on from", say."""
    if manifest.get("quantized"):
        raise UserError(
            f"{checkpoint} is quantised ({manifest['quantized']}), for translating only, and {purpose} full weights; "
            "give the run that it was exported from"
        )
