"""Random bits that are a function of a counter alone, so that they are the same wherever they are computed.

The idea is that of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the function is splitmix64
(Steele, Lea and Flood 2014), with its constants written as signed 64-bit integers because torch has no full support for
uint64.
"""

from torch import Tensor

# Successive counters are multiplied by it before they are mixed.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MULTIPLIER_2 = 0x94D049BB133111EB - (1 << 64)


def mix(x: Tensor) -> Tensor:
    """Return splitmix64's output function of each number, int64."""
    x = (x ^ shift_right(x, 30)) * _MULTIPLIER_1
    x = (x ^ shift_right(x, 27)) * _MULTIPLIER_2
    return x ^ shift_right(x, 31)


def shift_right(x: Tensor, bits: int) -> Tensor:
    """Return x shifted logically; torch's own shift of a signed integer copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
