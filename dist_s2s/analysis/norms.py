"""How numbers that are spread over ranks are distributed: exact quantiles and a histogram, of which counts travel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s.analysis.rows import TableRows

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 20
_DIGIT_BITS = 7  # nine digits are the 63 bits of a float64 that is not negative


@dataclass(frozen=True)
class Distribution:
    """How numbers of at least 0 are distributed.

    Attributes:
        quantiles: by share, interpolated linearly, as NumPy does.
        edges, counts: a histogram of bins of equal width, as NumPy's.
    """

    min: float
    max: float
    mean: float
    quantiles: dict[float, float]
    edges: list[float]
    counts: list[int]


def distribution(mine: Tensor, rows: TableRows) -> Distribution:
    """Return the distribution of all ranks' numbers (collective).

    Args:
        mine: this rank's, float64 [N], none of them negative; some rank has one.
        rows: of the ranks.
    """
    ordered = mine.sort().values
    count, total = rows.sum(torch.tensor([len(mine), float(mine.sum())], dtype=torch.float64)).tolist()
    places = torch.tensor(QUANTILES, dtype=torch.float64) * (count - 1)
    below = places.long()
    wanted = torch.cat((torch.tensor([0, int(count) - 1]), below, (below + 1).clamp(max=int(count) - 1)))
    found = order_statistics(ordered, wanted, rows)
    least, most = found[:2].tolist()
    lower, upper = found[2:].view(2, -1)
    quantiles = lower + (upper - lower) * (places - below)
    low, high = (least, most) if least < most else (least - 0.5, most + 0.5)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    ends = torch.cat((torch.searchsorted(ordered, edges[:-1]), torch.tensor([len(ordered)])))
    return Distribution(
        least,
        most,
        total / count,
        dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        edges.tolist(),
        rows.sum(ends.diff()).tolist(),
    )


def order_statistics(ordered: Tensor, places: Tensor, rows: TableRows) -> Tensor:
    """Return which numbers would stand at ``places`` if all ranks' were sorted together, float64 [P] (collective).

    The bits of floats that are not negative are in the order of their values. So the bits of each result are found
    digit by digit, beginning with the highest: all ranks count how many of their numbers lie below each possible digit.

    Args:
        ordered: this rank's, float64 [N] in ascending order, none of them negative.
        places: int64 [P], counting from 0, the same on every rank.
    """
    bits, found = (ordered + 0.0).view(torch.int64), torch.zeros_like(places)  # -0.0 + 0.0 is 0.0
    for shift in range(63 - _DIGIT_BITS, -1, -_DIGIT_BITS):
        begins = found[:, None] + (torch.arange(1 << _DIGIT_BITS) << shift)
        below = rows.sum(torch.searchsorted(bits, begins))
        digits = (below <= places[:, None]).sum(1) - 1
        found += digits << shift
    return found.view(torch.float64)
