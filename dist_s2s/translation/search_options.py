"""How translations are searched for."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a search.

    Attributes:
        beam_size: hypotheses kept for a sentence; 1 is greedy search.
        length_factor, extra_length: a translation has at most ``length_factor`` · source tokens + ``extra_length``
            tokens, EOS counted on both sides.
    """

    beam_size: int = 1
    length_factor: int = 2
    extra_length: int = 10

    def __post_init__(self) -> None:
        """Refuse what no search can do."""
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, but is {self.beam_size}")
        if self.length_factor < 0 or self.extra_length < 1:
            raise ValueError(
                "length_factor must be at least 0 and extra_length at least 1, but they are "
                f"{self.length_factor} and {self.extra_length}"
            )

    def max_lengths(self, source_lengths_B: Tensor) -> Tensor:
        """Return the most tokens of each translation: int64 [B]."""
        return self.length_factor * source_lengths_B + self.extra_length
