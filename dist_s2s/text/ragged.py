"""Lists of different lengths that stand in one array, one after the other or anywhere."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def positions(begins: Ints, sizes: Ints) -> Ints:
    """Return the positions of all elements of some lists, one list after the other: int64 [sum of sizes].

    Args:
        begins: where each list begins in the array that they stand in, int64.
        sizes: how many elements each has, int64.
    """
    places: Ints = np.arange(sizes.sum()) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
    return places
