"""Where blocks lie in bytes: one behind the other, each at a multiple of the widest dtype's size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 8  # bytes


def places(first: int, sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where blocks of so many bytes begin behind the first bytes, and where the last ends."""
    begins = []
    for size in sizes:
        begins.append(first)
        first += -(-size // _ALIGNMENT) * _ALIGNMENT
    return begins, first


def view(memory: Tensor, first: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor in memory, uint8, that begins with byte ``first``."""
    return memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
