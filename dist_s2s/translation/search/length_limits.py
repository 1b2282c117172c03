"""How long a translation may become, and a source that is read as a whole: measured on the training pairs."""

import math

import torch
from torch import Tensor

# Shapes: N pairs, L distinct source lengths, A slopes.

_PAIRS_LOOKED_AT = 1_000_000
_PAIRS_PER_OUTLIER = 1000
_MARGIN_FACTOR, _MARGIN_TOKENS = 1.5, 10
_STEEPEST, _SLOPES = 3.0, 41  # slopes that are tried: between the mean ratio and three times that


def longest_source(lengths_N2: Tensor) -> int:
    """Return the most tokens, EOS not counted, that a source has, the thousandth of the longest left out.

    A model reads longer ones worse than it reads their pieces. Args as of ``fit_length_limits``.
    """
    lengths_N = lengths_N2[:: 1 + len(lengths_N2) // _PAIRS_LOOKED_AT, 0].long()
    return int(lengths_N.topk(len(lengths_N) // _PAIRS_PER_OUTLIER + 1).values[-1])


def fit_length_limits(lengths_N2: Tensor) -> tuple[float, int]:
    """Return (factor, extra): a translation of n tokens' source gets at most ``factor · n + extra`` tokens.

    The rule: leave out the thousandth of the pairs whose target is longest for its source, which may be misaligned. Of
    the lines that no other pair lies above, and that rise at least as fast as targets do on average (so that sources
    longer than any pair's get enough), take the one with the smallest mean limit. Allow half as much again, plus 10.

    Args:
        lengths_N2: tokens of each pair's source and target, EOS not counted; the limits count it on both sides.
            Of many pairs, a million are looked at, evenly spaced.
    """
    lengths_N2 = lengths_N2[:: 1 + len(lengths_N2) // _PAIRS_LOOKED_AT].long() + 1
    source_N, target_N = lengths_N2.unbind(1)
    ratio = (target_N.sum() / source_N.sum()).item()
    excess_N = target_N - ratio * source_N
    outliers = len(lengths_N2) // _PAIRS_PER_OUTLIER
    kept_N = excess_N <= excess_N.topk(outliers + 1).values[-1]
    longest = torch.zeros(int(source_N.max()) + 1, dtype=torch.int64)
    longest.scatter_reduce_(0, source_N[kept_N], target_N[kept_N], "amax")
    source_L = longest.nonzero()[:, 0]
    slope_A = ratio * torch.linspace(1.0, _STEEPEST, _SLOPES, dtype=torch.float64)
    offset_A = (longest[source_L] - slope_A[:, None] * source_L).amax(dim=1).clamp(min=0)
    best = int((slope_A * source_N.double().mean() + offset_A).argmin())
    factor = math.ceil(100 * _MARGIN_FACTOR * slope_A[best].item()) / 100
    return factor, math.ceil(_MARGIN_FACTOR * offset_A[best].item()) + _MARGIN_TOKENS
