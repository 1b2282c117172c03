"""Random ids."""

import math

import torch
from torch import Generator, Tensor

SAME_ID = math.inf  # the skew with which all ids are equal


def draw_ids(count: int, size: int, generator: Generator, skew: float = 1.0) -> Tensor:
    """Draw ids, int64 [count], from [0, size).

    An id i has a probability of about (i + 1)^-skew: 1 draws log-uniform ids, like the words of a text numbered by
    falling frequency (Zipf's law), 0 uniform ones, and SAME_ID only id 0.
    """
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    end, power = size + 1.0, 1.0 - skew
    value = end**uniform if abs(power) < 1e-9 else (1 + uniform * (end**power - 1)) ** (1 / power)
    return (value.long() - 1).clamp_(0, size - 1)
