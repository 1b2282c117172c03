"""What the commands share: how they end, and how they read their options."""

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from dist_s2s import UserError
from dist_s2s.cli.outputs import READER_GONE, StdoutError, open_standard_streams
from dist_s2s.training.patient_output import lose

RANKING_OPTIONS = ("length_penalty", "coverage_penalty", "min_length", "no_repeat_ngram", "shortlist")
ON_RANKS = ("train", "translate", "evaluate", "score", "average", "probe", "align", "serve")  # they take --ranks N


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command: a UserError becomes one line on stderr and exit status 2, on every rank. Never returns.

    So does a stdout that cannot be written to, as it is closed or its disk is full.
    """
    open_standard_streams()
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        status = _tell(str(error))
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone, as in `translate | head`
        lose(sys.stdout)
        status = READER_GONE
    except StdoutError as error:
        lose(sys.stdout)
        status = _tell(f"cannot write stdout: {error.strerror}")
    sys.exit(status)


def _tell(error: str) -> int:
    """Write what a user has to put right to stderr, and return the exit status for it."""
    is_rank = os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
    where = f"rank {os.environ['RANK']}: " if is_rank else ""
    # One write, so that the lines of several ranks do not mix.
    sys.stderr.write("".join(f"{where}error: {line}\n" for line in error.splitlines()))
    sys.stderr.flush()
    return 2


def program(name: str) -> str:
    """Return how the user has called the command ``name``, for its messages.

    Raises:
        UserError: ``python -m`` was given --ranks, which ``dist-s2s`` alone knows, as it starts the ranks; or torchrun
            has started several processes of a command of which each would do all.
    """
    world_size = os.environ.get("WORLD_SIZE", "1")
    if name not in ON_RANKS and world_size != "1":
        raise UserError(
            f"dist-s2s {name} is for one process, but WORLD_SIZE is {world_size}: start it without torchrun, or unset "
            "that"
        )
    if sys.argv[0] == f"dist-s2s {name}":
        return sys.argv[0]
    if name in ON_RANKS and any(word.partition("=")[0] == "--ranks" for word in sys.argv[1:]):
        raise UserError(
            f"--ranks is an option of dist-s2s {name}, not of python -m dist_s2s.{name}: write dist-s2s {name} --ranks "
            f"N, or torchrun --nproc_per_node=N -m dist_s2s.{name}"
        )
    return f"python -m dist_s2s.{name}"


def command_parser(prog: str, description: str | None, **settings: Any) -> argparse.ArgumentParser:
    """Return the parser of a command; its help tells of --ranks too, which dist-s2s takes before the command does."""
    name = prog.removeprefix("dist-s2s ")
    on_ranks = name != prog and name in ON_RANKS
    epilog = f"With --ranks N, {prog} runs as N processes on this machine." if on_ranks else None
    return argparse.ArgumentParser(prog=prog, description=description, epilog=epilog, **settings)


def positive_int(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, but is {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {value}")
    return value


def seed_number(text: str) -> int:
    """Return a whole number from 0 to 2**63 - 1, for argparse; counting on from it stays within 64 bits."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**63 - 1}, but is {text!r}")
    return int(text)


def port_number(text: str) -> int:
    """Return a whole number from 0 to 65535, for argparse."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, but is {text!r}")
    return int(text)


def number_from_zero(text: str) -> float:
    """Return a finite number of at least 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, but is {text!r}") from None
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, but is {text}")
    return value


def _exponent(text: str) -> float:
    from dist_s2s.config.values import MOST_LENGTH_PENALTY

    value = number_from_zero(text)
    if value > MOST_LENGTH_PENALTY:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_LENGTH_PENALTY:g}, but is {text}")
    return value


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add how translations are searched for."""
    parser.add_argument("--beam_size", type=positive_int, default=1, help="1 (default): greedy search")
    limits = "a translation has at most FACTOR · source tokens + EXTRA tokens (default: as in the run)"
    parser.add_argument("--length_factor", type=number_from_zero, metavar="FACTOR", help=limits)
    parser.add_argument("--extra_length", type=positive_int, metavar="EXTRA", help="see --length_factor")
    add_ranking_options(parser)


def add_ranking_options(parser: argparse.ArgumentParser) -> None:
    """Add what makes one translation better than another, and what none may do."""
    parser.add_argument(
        "--length_penalty",
        type=_exponent,
        metavar="ALPHA",
        help="scores are log-probabilities divided by length**ALPHA: 1: log-probability per token; 0: of the whole "
        "translation (default: as in the run)",
    )
    parser.add_argument(
        "--coverage_penalty",
        type=number_from_zero,
        metavar="BETA",
        help="with a beam: scores are lower the less attention source tokens get, BETA times so (default: 0)",
    )
    parser.add_argument("--min_length", type=positive_int, metavar="N", help="a translation has at least N tokens")
    parser.add_argument(
        "--no_repeat_ngram",
        type=positive_int,
        metavar="N",
        help="no sequence of N tokens occurs twice in a translation",
    )
    parser.add_argument(
        "--no_shortlist",
        action="store_const",
        const=False,
        dest="shortlist",
        help="choose from all target tokens, also with a run that export --shortlist has written",
    )


def given_search(arguments: argparse.Namespace) -> list[str]:
    """Return the names of the options of ``add_search_options`` that are given."""
    names = ["length_factor", "extra_length", *RANKING_OPTIONS]
    given = ["beam_size"] * (arguments.beam_size > 1)
    given += [name for name in names if getattr(arguments, name) is not None]
    return ["no_shortlist" if name == "shortlist" else name for name in given]


def chosen_search(arguments: argparse.Namespace) -> dict[str, int | float]:
    """Return which of ``RANKING_OPTIONS`` are given."""
    values = {name: getattr(arguments, name) for name in RANKING_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def add_replace_unknown(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of words that the target vocabulary lacks."""
    parser.add_argument(
        "--replace_unknown",
        action="store_true",
        help="let the token for unknown words be chosen, and write for each the source word that it looks at most",
    )
