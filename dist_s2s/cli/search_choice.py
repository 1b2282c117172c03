"""What options say of how runs translate."""

import argparse
from typing import TYPE_CHECKING

from dist_s2s.cli.command_line import chosen_search
from dist_s2s.cli.sampling_options import chosen_sampling

if TYPE_CHECKING:
    from dist_s2s.translation.search_choice import SearchChoice


def search_choice(arguments: argparse.Namespace, num_samples: int = 1) -> "SearchChoice":
    """Return what the options of searches and samples say, and --replace_unknown; ``num_samples``: without --mbr."""
    from dist_s2s.translation.search_choice import SearchChoice

    return SearchChoice(
        arguments.beam_size,
        arguments.length_factor,
        arguments.extra_length,
        arguments.replace_unknown,
        chosen_search(arguments),
        chosen_sampling(arguments, num_samples),
    )
