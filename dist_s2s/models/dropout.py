"""What becomes of embeddings and hidden units on their way: dropout, of whole words too."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: B sentences, T positions, X units.

_STEPS = 1 << 16  # rates are multiples of 1 / _STEPS, so that four units share a random number of 64 bits


@dataclass(frozen=True)
class DropoutRates:
    """What is dropped in training, as shares.

    Attributes:
        hidden: of the units between layers and after the last.
        embedding: of the numbers of embeddings; None: as many as ``hidden``.
        words: of the words, whose embeddings become zero as a whole (Sennrich et al. 2016, arXiv:1606.02891).
        variational: drop the same units at all positions of a sentence (Gal and Ghahramani 2016, arXiv:1512.05287).
    """

    hidden: float = 0.0
    embedding: float | None = None
    words: float = 0.0
    variational: bool = False


class Dropout(nn.Module):
    """Zero a share of the units in training, and scale the others up so that sums stay what they are on average."""

    def __init__(self, rate: float, variational: bool = False) -> None:
        super().__init__()
        self.rate, self.variational = rate, variational

    def mask(self, shape_BTX: tuple[int, int, int], like: Tensor) -> Tensor | None:
        """Return factors of hidden units, [B, T, X], or [B, 1, X] if variational; None where nothing is dropped.

        They have dtype and device of ``like``.
        """
        if not self.training or self.rate == 0:
            return None
        size, positions, units = shape_BTX
        return _random_mask((size, 1 if self.variational else positions, units), self.rate, like)

    def forward(self, hidden_BTX: Tensor) -> Tensor:
        """Drop units of [B, T, X]."""
        size, positions, units = hidden_BTX.shape
        return drop(hidden_BTX, self.mask((size, positions, units), hidden_BTX))


class EmbeddingInput(nn.Module):
    """Scale embeddings; drop numbers of them, and whole words, each position by itself."""

    def __init__(self, rates: DropoutRates, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.numbers = Dropout(rates.hidden if rates.embedding is None else rates.embedding, rates.variational)
        self.words = Dropout(rates.words)

    def forward(self, embedded_BTX: Tensor) -> Tensor:
        """Return what the first layer reads, [B, T, X]."""
        if self.scale != 1:
            embedded_BTX = embedded_BTX * self.scale
        size, positions, _ = embedded_BTX.shape
        return drop(self.numbers(embedded_BTX), self.words.mask((size, positions, 1), embedded_BTX))


def drop(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return hidden units times what ``Dropout.mask`` has returned, in their dtype."""
    return hidden if mask is None else hidden * mask.to(hidden.dtype)


def _random_mask(shape: tuple[int, int, int], rate: float, like: Tensor) -> Tensor:
    """Draw from torch's default generator of the device.

    On a CPU, drawing 16 bits for a unit takes a sixth of the time of torch's own dropout, which draws a float for each.
    """
    if like.device.type != "cpu":
        return F.dropout(like.new_ones(shape), rate)
    count, dropped = math.prod(shape), min(round(rate * _STEPS), _STEPS - 1)
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]
    kept = draws.view(shape) >= dropped - _STEPS // 2
    return kept.to(like.dtype).mul_(_STEPS / (_STEPS - dropped))
