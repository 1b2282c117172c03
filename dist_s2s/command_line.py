"""What the commands share: how they end, and how they read a number."""

import argparse
import os
import sys
from collections.abc import Callable

from dist_s2s.distributed import stop_ranks
from dist_s2s.errors import UserError


def run_command(main: Callable[[], int | None]) -> None:
    """Runs a command: a UserError becomes one line on stderr and exit status 2, on every rank."""
    status: int | None = 2
    try:
        status = main()
    except UserError as error:
        where = f"rank {os.environ.get('RANK')}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        # One write, so that the lines of several ranks do not mix.
        sys.stderr.write("".join(f"{where}error: {line}\n" for line in str(error).splitlines()))
        sys.stderr.flush()
    finally:
        stop_ranks()
    sys.exit(status)


def positive_int(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, but is {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {value}")
    return value
