"""How a user wants runs to translate."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dist_s2s.translation.search.options import Searchable, SearchOptions
from dist_s2s.translation.search.sampling import Sampling
from dist_s2s.translation.unknown_words import check_replaceable


@dataclass(frozen=True)
class SearchChoice:
    """How runs translate.

    Attributes:
        beam_size, replace_unknown, sampling: as of SearchOptions.
        length_factor, extra_length: likewise; None: as each run says.
        others: more attributes of SearchOptions, by name; those that are not there are as each run says.
    """

    beam_size: int
    length_factor: float | None
    extra_length: int | None
    replace_unknown: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling | None = None

    def options(self, run: Searchable, *others: Searchable) -> SearchOptions:
        """Return the settings of a run's search, or of its samples. Calls no collectives.

        Args:
            run: also tells what the choice leaves open.
            others: the rest of an ensemble.

        Raises:
            UserError: they cannot be searched so, or their unknown words cannot be replaced, but are to be.
        """
        if self.replace_unknown:
            check_replaceable(run, *others)
        options = SearchOptions.of(run.config, self.beam_size)
        options = options.with_limits(self.length_factor, self.extra_length)
        options = replace(options, replace_unknown=self.replace_unknown, sampling=self.sampling, **self.others)
        options.check(run, *others)
        return options
