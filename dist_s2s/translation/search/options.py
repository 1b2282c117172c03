"""How translations are searched for."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.config.values import MOST_LENGTH_PENALTY
from dist_s2s.models import Ranking, Rules
from dist_s2s.text.side import TextSide
from dist_s2s.translation.output.start import NEVER_CHOSEN, NEVER_CHOSEN_BUT_UNKNOWN
from dist_s2s.translation.search.sampling import Sampling

_MOST_TOKENS = 1 << 31  # where a user's limit is one without meaning


class Searchable(Protocol):
    """What a search must fit: a run on the disk, or its translator."""

    @property
    def config(self) -> Config:
        """The run's."""

    @property
    def target(self) -> TextSide:
        """What is written with."""


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a search.

    Attributes:
        beam_size: hypotheses kept for a sentence; 1 is greedy search.
        length_factor, extra_length: a translation has at most ``length_factor`` · source tokens + ``extra_length``
            tokens, EOS counted on both sides. The defaults are for runs that have not measured their training pairs.
        replace_unknown: the token for unknown words may be chosen, and what is found is for
            ``unknown_words.replace_unknown``.
        length_penalty, coverage_penalty: what scores are, see ``Ranking``.
        min_length, no_repeat_ngram: which tokens may not come, see ``Rules``.
        shortlist: a run with a shortlist chooses from each sentence's alone, and probabilities are among these.
        sampling: that translations are drawn, instead of searched for; None: they are searched for.
    """

    beam_size: int = 1
    length_factor: float = 6.0
    extra_length: int = 50
    replace_unknown: bool = False
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    min_length: int = 0
    no_repeat_ngram: int = 0
    shortlist: bool = True
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
        for name in ("length_penalty", "coverage_penalty", "min_length", "no_repeat_ngram"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, but is {getattr(self, name)}")
        if self.length_penalty > MOST_LENGTH_PENALTY:
            raise ValueError(f"length_penalty must be at most {MOST_LENGTH_PENALTY:g}, but is {self.length_penalty}")

    @classmethod
    def of(cls, config: Config, beam_size: int = 1) -> Self:
        """Return a run's limits and length penalty; the default limits if it has none."""
        of_run = config.translation
        options = cls(beam_size, length_penalty=of_run.length_penalty)
        return options.with_limits(of_run.length_factor, of_run.extra_length)

    def with_limits(self, length_factor: float | None, extra_length: int | None) -> Self:
        """Return the same with other limits, each of them kept where it is None."""
        factor = self.length_factor if length_factor is None else length_factor
        return replace(self, length_factor=factor, extra_length=extra_length or self.extra_length)

    def check(self, *members: Searchable) -> None:
        """Raise UserError for what cannot be searched with a run, or an ensemble of several. Calls no collectives."""
        usable = len(members[0].target.vocabulary) - len(self.never_chosen)
        if self.beam_size > usable:
            raise UserError(
                f"beam_size is {self.beam_size}, but there are only {usable} target tokens to choose from; lower it"
            )
        if self.coverage_penalty and any(each.config.model.attention == "none" for each in members):
            raise UserError(
                "coverage_penalty goes by attention, which this run does not have (model.attention: none); leave it out"
            )

    @property
    def ranking(self) -> Ranking:
        """What scores are."""
        return Ranking(self.length_penalty, self.coverage_penalty)

    @property
    def rules(self) -> Rules:
        """Which tokens may not come."""
        return Rules(self.min_length, self.no_repeat_ngram)

    @property
    def never_chosen(self) -> Sequence[int]:
        """Ids that are in no translation."""
        return NEVER_CHOSEN_BUT_UNKNOWN if self.replace_unknown else NEVER_CHOSEN

    def max_lengths(self, source_lengths_B: Tensor) -> Tensor:
        """Return the most tokens of each translation: int64 [B]."""
        by_factor_B = (self.length_factor * source_lengths_B.double()).ceil().clamp(max=_MOST_TOKENS).long()
        return by_factor_B + min(self.extra_length, _MOST_TOKENS)

    def limits_of(self, num_tokens: Iterable[int]) -> list[int]:
        """Return the same, given source tokens without EOS."""
        limits: list[int] = self.max_lengths(torch.tensor([count + 1 for count in num_tokens])).tolist()
        return limits

    @property
    def num_hypotheses(self) -> int:
        """How many hypotheses of a sentence there are at a time."""
        return self.beam_size if self.sampling is None else self.sampling.options.num_samples

    @property
    def longest(self) -> str:
        """Say in words how long a translation may become."""
        return f"{self.length_factor:g} · source tokens + {self.extra_length}"
