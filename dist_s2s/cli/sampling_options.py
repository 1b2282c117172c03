"""The options of translations that are drawn instead of searched for."""

import argparse
from typing import TYPE_CHECKING

from dist_s2s import UserError
from dist_s2s.cli.command_line import given_search, positive_int, seed_number

if TYPE_CHECKING:
    from dist_s2s.translation.search.sampling import Sampling

_SHAPES = ("temperature", "top_k", "top_p", "seed")
_OF_SAMPLES_TOO = ("length_factor", "extra_length", "no_shortlist")  # of the options of searches


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add how translations are drawn."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--sample",
        action="store_true",
        help="draw translations, each as often as the model finds it likely, instead of searching for the likeliest",
    )
    group.add_argument(
        "--mbr",
        type=positive_int,
        metavar="N",
        help="draw N samples and take the one that is most like the others by chrF (minimum Bayes risk)",
    )
    group.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="divide log-probabilities by T: below 1, likely tokens become likelier (default: 1)",
    )
    group.add_argument(
        "--top_k", type=positive_int, metavar="K", help="draw from the K likeliest tokens (default: all)"
    )
    group.add_argument(
        "--top_p",
        type=float,
        metavar="P",
        help="draw from the fewest likeliest tokens that together have probability P, after --temperature and --top_k "
        "(default: 1, all)",
    )
    group.add_argument("--seed", type=seed_number, metavar="S", help="another seed gives other samples (default: 0)")


def check_sampling(arguments: argparse.Namespace) -> None:
    """Raise UserError for options of samples that are impossible, or do not fit together. Needs no torch."""
    is_drawn = arguments.sample or arguments.mbr is not None
    named = next((name for name in _SHAPES if getattr(arguments, name) is not None), None)
    if named is not None and not is_drawn:
        raise UserError(f"--{named} says how translations are drawn: give --sample or --mbr N too, or leave it out")
    searched = [name for name in given_search(arguments) if name not in _OF_SAMPLES_TOO]
    searched += [name for name in ("prefix", "terms") if getattr(arguments, name, None) is not None]
    if is_drawn and searched:
        raise UserError(
            f"--{searched[0]} is for a search, but --{'sample' if arguments.sample else 'mbr'} draws translations: "
            "leave out one of them"
        )
    if arguments.mbr == 1:
        raise UserError("--mbr compares samples with each other, so it needs 2 at least, but is 1")
    if arguments.mbr is not None and getattr(arguments, "nbest", None) is not None:
        raise UserError("--mbr takes one of its samples: leave out --nbest, or give --sample --nbest N to see them")
    if arguments.temperature is not None and not 0 < arguments.temperature < float("inf"):
        raise UserError(
            f"--temperature must be a finite number above 0, but is {arguments.temperature:g}; for the likeliest token "
            "at each step, leave out --sample"
        )
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise UserError(f"--top_p is a probability, above 0 and at most 1, but is {arguments.top_p:g}")


def chosen_sampling(arguments: argparse.Namespace, num_samples: int = 1) -> "Sampling | None":
    """Return what the options say, which have been checked; None for a search.

    Args:
        num_samples: of each sentence, without --mbr.
    """
    from dist_s2s.models.sampling import SamplingOptions
    from dist_s2s.translation.search.sampling import Sampling

    by_risk = arguments.mbr is not None
    if not (arguments.sample or by_risk):
        return None
    temperature, top_p = (1.0 if value is None else value for value in (arguments.temperature, arguments.top_p))
    options = SamplingOptions(arguments.mbr or num_samples, temperature, arguments.top_k, top_p)
    return Sampling(options, arguments.seed or 0, by_risk)
