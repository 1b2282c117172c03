"""Where tables for people are printed."""

import sys

from rich.console import Console


def table_console() -> Console:
    """Return stdout, which is 120 characters wide where it is no terminal; words are shown as they are."""
    # What is no terminal has no width, for which rich takes 80.
    return Console(width=None if sys.stdout.isatty() else 120, markup=False, highlight=False, emoji=False)
