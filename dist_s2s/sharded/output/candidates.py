"""The classes that a sampled softmax looks at in a step: a function of seed and step, so the same on every rank."""

import hashlib
import math

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_candidates(
    num_samples: int, num_classes: int, cumulative: Tensor | None, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return the distinct ids of ``num_samples`` draws with replacement, and how likely each was to be drawn.

    Args:
        num_samples: number of draws.
        num_classes: ids are drawn from [0, num_classes).
        cumulative: result of ``cumulative_shares``. If None, id i is drawn with probability
            q(i) = log((i + 2) / (i + 1)) / log(num_classes + 1), in time that does not depend on num_classes.
        seed: decides the draws together with ``step``.
        step: number of the training step.

    Returns:
        Ids in ascending order, int64 [S], and log(1 - (1 - q)^num_samples) for each, float64 [S]; both on the CPU.
    """
    # A hash, so that step 1 of seed 0 and step 0 of seed 1 have nothing in common.
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    uniform = torch.rand(num_samples, generator=generator, dtype=torch.float64)
    if cumulative is None:
        log_range = math.log(num_classes + 1)
        ids = uniform.mul_(log_range).exp_().long().sub_(1).clamp_(0, num_classes - 1).unique()
        probability = (1 / (ids + 1).double()).log1p_().div_(log_range).clamp_(max=1)
    else:
        ids = torch.searchsorted(cumulative, uniform, right=True).sub_(1).unique()
        probability = cumulative[ids + 1] - cumulative[ids]
    return ids, torch.expm1(num_samples * torch.log1p(-probability)).neg_().log_()


def cumulative_shares(frequencies: Tensor) -> Tensor:
    """Return cumulative shares, float64 [num_classes + 1], rising from 0 to 1.

    A uniform number between elements i and i + 1 draws class i.

    Args:
        frequencies: counts, [num_classes], none negative and not all 0.
    """
    cumulative = F.pad(frequencies.detach().double().cpu().cumsum(0), (1, 0))
    return cumulative / cumulative[-1]


def frequencies_error(frequencies: Tensor, num_classes: int) -> ValueError | None:
    """Return a ValueError if these cannot be the counts of ``num_classes`` classes, or None."""
    if frequencies.shape != (num_classes,):
        return ValueError(f"frequencies must have shape ({num_classes},), but has {tuple(frequencies.shape)}")
    impossible = (frequencies < 0) | ~frequencies.isfinite()
    if impossible.any():
        first = int(impossible.nonzero()[0])
        value = frequencies[first].item()
        return ValueError(f"frequencies must be finite and not negative, but that of class {first} is {value:g}")
    return None if frequencies.any() else ValueError("frequencies must not all be 0")
