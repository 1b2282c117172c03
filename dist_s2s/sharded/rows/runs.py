"""Equal numbers of a list brought together, to take each once and to sum what belongs to it."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Runs:
    """A list of N integers of which U are distinct, sorted so that equal ones follow each other.

    distinct: int64 [U], sorted.
    counts: int64 [U], how often each occurs.
    order: int64 [N], the places in the list of the sorted integers; of equal ones the first comes first.
    places: int64 [N], of the sorted integers the places among the distinct ones.
    """

    distinct: Tensor
    counts: Tensor
    order: Tensor
    places: Tensor

    @classmethod
    def of(cls, numbers: Tensor, deduplicate: bool = True) -> Self:
        """The runs of int64 [N], none negative; without ``deduplicate`` equal numbers count as different."""
        ordered, order = _sort(numbers)
        if not deduplicate:
            return cls(ordered, torch.ones_like(ordered), order, torch.arange(len(order), device=order.device))
        distinct, places, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        return cls(distinct, counts, order, places)

    @cached_property
    def inverse(self) -> Tensor:
        """Of the integers as they were given the places among the distinct ones, int64 [N]."""
        return torch.empty_like(self.order).index_copy_(0, self.order, self.places)

    def sums(self, values: Tensor) -> Tensor:
        """Of each distinct integer the sum of its values, [U, D], from those of all, [N, D], added in their order.

        A bag of an embedding bag is a run here: measured at a third of what index_add_ takes on the CPU.
        """
        if len(self.order) == 0:
            return values.new_zeros(0, values.shape[1])
        return F.embedding_bag(self.order, values, self.counts.cumsum(0).sub_(self.counts), mode="sum")

    def to(self, device: torch.device) -> Self:
        """The same runs on another device."""
        return replace(
            self, **{name: getattr(self, name).to(device) for name in ("distinct", "counts", "order", "places")}
        )


def _sort(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The integers, int64 [N], none negative, sorted, and the place that each had; of equal ones the first comes first.

    On the CPU numpy sorts numbers and places together, as one integer each, with vector instructions: measured at a
    fifth of torch's stable sort for 4,096 ids that are new in each step, and at a tenth for 20,000 (AVX-512).
    """
    place_bits = len(numbers).bit_length()
    if numbers.is_cpu and len(numbers) and int(numbers.max()) < 1 << (63 - place_bits):
        keys = (numbers << place_bits).add_(torch.arange(len(numbers), device="cpu"))
        keys.numpy().sort()
        return keys >> place_bits, keys & ((1 << place_bits) - 1)
    return numbers.sort(stable=True)
