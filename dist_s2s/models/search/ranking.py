"""What makes one hypothesis better than another."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Shapes: B sentences, K beam_size, N hypotheses that go on, S source positions.

_LEAST_ATTENTION = 1e-30  # so that a position that was never looked at costs much, but not everything


@dataclass(frozen=True)
class Ranking:
    """The score of a hypothesis, whether it has ended or goes on; the same for all hypotheses of a search.

    score = log-probability / length**length_penalty + coverage_penalty · Σ_s log(min(Σ_t attention_ts, 1))

    Wu et al. 2016 (arXiv:1609.08144), section 7, with the plain power of the length, which they tried first. Length and
    sums count the end token, of the target (t) and of the source (s).

    Attributes:
        length_penalty: 1: log-probability per token; 0: the log-probability itself. Not negative, so that the
            continuations of one hypothesis are ranked as by their probabilities, and that there is a bound.
        coverage_penalty: for source positions that were looked at too little. 0: none, and attention is not asked for.
    """

    length_penalty: float = 1.0
    coverage_penalty: float = 0.0

    def scores(self, sums: Tensor, lengths: Tensor, coverage: Tensor | float) -> Tensor:
        """Return scores in float64.

        Args:
            sums: log-probabilities, float64 of any shape.
            lengths: int64 that broadcasts to it.
            coverage: of ``coverage``, likewise.
        """
        return sums / lengths.clamp(min=1).double() ** self.length_penalty + coverage

    def bounds(self, sums_BK: Tensor, max_lengths_B: Tensor) -> Tensor:
        """Return scores [B, K] that no continuation of hypotheses with these log-probabilities can exceed.

        A log-probability can only fall, to be divided by the maximum length at best, and coverage adds at most 0.
        """
        return self.scores(sums_BK, max_lengths_B[:, None], 0.0)

    def coverage(self, looked_NS: Tensor, source_lengths_N: Tensor) -> Tensor:
        """Return what coverage adds to scores, float64 [N].

        Args:
            looked_NS: float64 sums of attention.
            source_lengths_N: of the source, whose other positions are padding.
        """
        places_S = torch.arange(looked_NS.shape[1], device=looked_NS.device)
        logarithms_NS = looked_NS.clamp(_LEAST_ATTENTION, 1.0).log()
        return self.coverage_penalty * logarithms_NS.masked_fill(places_S >= source_lengths_N[:, None], 0.0).sum(dim=1)
