"""Pairs of sentences that a command is given: a file of any form, or the test data of a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dist_s2s import UserError

if TYPE_CHECKING:
    from dist_s2s.config import Config


def add_columns_option(parser: argparse.ArgumentParser) -> None:
    """Add which of a file's columns, keys or languages are source and target."""
    parser.add_argument(
        "--columns",
        metavar="A,B",
        help="source and target of the pairs: numbers of columns, keys or languages (default: as the file tells, or "
        "for the run's own data as in the run)",
    )


def files_of(data: str | None) -> list[Path]:
    """Return the files that --data names, as far as it names any."""
    return [] if data is None else [Path(name) for name in data.split(",")]


def read_pairs(named: str | None, columns: str | None, config: "Config | None") -> tuple[str, list[tuple[str, str]]]:
    """Return the name of the pairs, and the pairs.

    Args:
        named: an input; None for the test data of a run, which are read as training reads them.
        columns: what ``--columns`` says; None for nothing.
        config: of the run.

    Raises:
        UserError: as ``load_pairs``; or the pairs have no columns to choose from.
    """
    from dist_s2s.text.corpus import is_prepared, load_pairs  # imports torch, which --help does not need

    data = None if config is None else config.data
    name = named
    if name is None:
        assert data is not None, "a command without pairs has a run"
        name = data.test
    if columns is not None and (name == "phrasebook" or is_prepared(name)):
        raise UserError(f"--columns is for files of pairs, but the sides of {name} are known: leave it out")
    if named is not None or data is None:
        return name, load_pairs(name, "test", columns)
    return name, load_pairs(name, "test", columns or data.columns, data.skip_bad_lines)
