"""Equal numbers of a list brought together, so that each is taken once and what belongs to it is summed."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Runs:
    """A list of N integers of which U are distinct, sorted so that equal ones follow each other.

    Attributes:
        distinct: the distinct integers, sorted, int64 [U].
        counts: how often each of them occurs, int64 [U].
        order: where each of the sorted integers stood in the list, int64 [N]; of equal ones the first comes first.
        places: which of the distinct integers each of the sorted ones is, int64 [N].
    """

    distinct: Tensor
    counts: Tensor
    order: Tensor
    places: Tensor

    @classmethod
    def of(cls, numbers: Tensor, deduplicate: bool = True) -> Self:
        """Return the runs of a list, int64 [N], none negative; equal ones differ if not ``deduplicate``."""
        ordered, order = _sort(numbers)
        if not deduplicate:
            return cls(ordered, torch.ones_like(ordered), order, torch.arange(len(order), device=order.device))
        distinct, places, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        return cls(distinct, counts, order, places)

    @cached_property
    def inverse(self) -> Tensor:
        """Which of the distinct integers each integer of the list is, int64 [N]."""
        return torch.empty_like(self.order).index_copy_(0, self.order, self.places)

    def sums(self, values: Tensor, places: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Return for each distinct integer the sum of its values, [U, D], added in the order of the list.

        An embedding bag is used, with a bag for each run: measured at a third of the time of index_add_ on the CPU.

        Args:
            values: one row for each integer of the list, [N, D]; or any rows if ``places`` are given.
            places: which row of ``values`` is that of each integer of the list, int64 [N].
            weights: what the value of each integer of the list is multiplied by, [N].
        """
        if len(self.order) == 0:
            return values.new_zeros(0, values.shape[1])
        starts = self.counts.cumsum(0).sub_(self.counts)
        rows = self.order if places is None else places.index_select(0, self.order)
        weights = None if weights is None else weights.index_select(0, self.order)
        return F.embedding_bag(rows, values, starts, mode="sum", per_sample_weights=weights)

    def to(self, device: torch.device) -> Self:
        """Return the same runs on another device."""
        return replace(
            self, **{name: getattr(self, name).to(device) for name in ("distinct", "counts", "order", "places")}
        )


def _sort(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the integers, int64 [N], none negative, sorted, and the place that each had; equal ones keep their order.

    On the CPU numpy sorts number and place as one integer, with vector instructions: measured at a fifth of the time of
    torch's stable sort for 4,096 ids that are new in each step, and at a tenth for 20,000 (AVX-512).
    """
    place_bits = len(numbers).bit_length()
    if numbers.is_cpu and len(numbers) and int(numbers.max()) < 1 << (63 - place_bits):
        keys = (numbers << place_bits).add_(torch.arange(len(numbers), device="cpu"))
        keys.numpy().sort()
        return keys >> place_bits, keys & ((1 << place_bits) - 1)
    return numbers.sort(stable=True)
