"""Initial rows, which depend only on the seed and the row's id, never on the number of ranks or the layout."""

import torch
from torch import Tensor

# Constants of splitmix64 (Steele, Lea and Flood 2014), written as signed 64-bit integers because torch has no full
# support for uint64.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLIER_2 = 0x94D049BB133111EB - (1 << 64)


def normal_rows(ids: Tensor, embedding_dim: int, seed: int) -> Tensor:
    """Return standard-normal rows, float32 [N, embedding_dim]: the same for the same id, wherever it is computed.

    The generator is counter-based (the idea of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): each
    pair of values is the output of splitmix64 at the counter ``id * pairs + pair``, turned into two normals by the
    Box–Muller transform. Temporaries take about eight times the size of the result; fill large shards in blocks.

    Args:
        ids: of the rows, int64 [N].
        embedding_dim: number of columns.
        seed: another seed gives other rows.
    """
    pairs = (embedding_dim + 1) // 2
    counters = ids[:, None] * pairs + torch.arange(pairs, device=ids.device)
    bits = _mix((counters + 1) * _GOLDEN_GAMMA + _mix(torch.tensor(seed, device=ids.device)))
    # 24 bits fill a float32 mantissa; the half step keeps the logarithm's argument away from 0.
    radius = (((bits >> 40) & 0xFFFFFF) + 0.5).float().mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = ((bits >> 8) & 0xFFFFFF).float().mul_(2.0**-24 * 2.0 * torch.pi)
    values = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return values.flatten(1)[:, :embedding_dim]


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Return x shifted logically; torch's own shift of a signed integer copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
