"""Initial rows, which depend only on the seed and the row's id, never on the number of ranks or the layout."""

import torch
from torch import Tensor

from dist_s2s.sharded.rows.random_bits import GOLDEN_GAMMA, mix


def normal_rows(ids: Tensor, embedding_dim: int, seed: int) -> Tensor:
    """Return standard-normal rows, float32 [N, embedding_dim]: the same for the same id, wherever it is computed.

    The generator is counter-based (see ``random_bits``): each pair of values is the output of splitmix64 at the counter
    ``id * pairs + pair``, turned into two normals by the Box–Muller transform. Temporaries take about eight
    times the size of the result; fill large shards in blocks.

    Args:
        ids: of the rows, int64 [N].
        embedding_dim: number of columns.
        seed: another seed gives other rows.
    """
    pairs = (embedding_dim + 1) // 2
    counters = ids[:, None] * pairs + torch.arange(pairs, device=ids.device)
    bits = mix((counters + 1) * GOLDEN_GAMMA + mix(torch.tensor(seed, device=ids.device)))
    # 24 bits fill a float32 mantissa; the half step keeps the logarithm's argument away from 0.
    radius = (((bits >> 40) & 0xFFFFFF) + 0.5).float().mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = ((bits >> 8) & 0xFFFFFF).float().mul_(2.0**-24 * 2.0 * torch.pi)
    values = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return values.flatten(1)[:, :embedding_dim]
