"""How translations are searched for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.translation.output.start import NEVER_CHOSEN, NEVER_CHOSEN_BUT_UNKNOWN
from dist_s2s.translation.sampling import Sampling


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a search.

    Attributes:
        beam_size: hypotheses kept for a sentence; 1 is greedy search.
        length_factor, extra_length: a translation has at most ``length_factor`` · source tokens + ``extra_length``
            tokens, EOS counted on both sides. The defaults are for runs that have not measured their training pairs.
        replace_unknown: the token for unknown words may be chosen, and what is found is for
            ``unknown_words.replace_unknown``.
        sampling: that translations are drawn, instead of searched for; None: they are searched for.
    """

    beam_size: int = 1
    length_factor: float = 6.0
    extra_length: int = 50
    replace_unknown: bool = False
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        """Refuse what no search can do."""
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, but is {self.beam_size}")
        if self.length_factor < 0 or self.extra_length < 1:
            raise ValueError(
                "length_factor must be at least 0 and extra_length at least 1, but they are "
                f"{self.length_factor} and {self.extra_length}"
            )

    @classmethod
    def of(cls, config: Config, beam_size: int = 1) -> Self:
        """Return the limits of a run's translations, or the defaults if it has none."""
        limits = config.translation
        if limits.length_factor is None or limits.extra_length is None:  # both are, says the configuration
            return cls(beam_size)
        return cls(beam_size, limits.length_factor, limits.extra_length)

    def with_limits(self, length_factor: float | None, extra_length: int | None) -> Self:
        """Return the same with other limits, each of them kept where it is None."""
        factor = self.length_factor if length_factor is None else length_factor
        return replace(self, length_factor=factor, extra_length=extra_length or self.extra_length)

    @property
    def never_chosen(self) -> Sequence[int]:
        """Ids that are in no translation."""
        return NEVER_CHOSEN_BUT_UNKNOWN if self.replace_unknown else NEVER_CHOSEN

    def max_lengths(self, source_lengths_B: Tensor) -> Tensor:
        """Return the most tokens of each translation: int64 [B]."""
        return (self.length_factor * source_lengths_B.double()).ceil().long() + self.extra_length

    @property
    def num_hypotheses(self) -> int:
        """How many hypotheses of a sentence there are at a time."""
        return self.beam_size if self.sampling is None else self.sampling.options.num_samples

    @property
    def longest(self) -> str:
        """Say in words how long a translation may become."""
        return f"{self.length_factor:g} · source tokens + {self.extra_length}"
