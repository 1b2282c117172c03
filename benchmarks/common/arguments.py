"""Command-line arguments that the benchmarks share."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_FILES = ("json", "plot")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that prints ``description``, a module's docstring, as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_outputs(parser: argparse.ArgumentParser, plots: bool = False) -> None:
    """Add --json and, if the benchmark plots, --plot."""
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write all figures there")
    if plots:
        parser.add_argument("--plot", type=new_plot, metavar="FILE.png", help="draw them there; needs matplotlib")


def settings_of(options: argparse.Namespace, *left_out: str) -> dict[str, Any]:
    """Return the options as a results file states them, without its own path and those ``left_out``."""
    return {name: value for name, value in vars(options).items() if name not in (*_FILES, *left_out)}


def positive(text: str) -> int:
    """Parse an integer above 0; raise argparse.ArgumentTypeError for any other."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


def new_file(text: str) -> Path:
    """Parse the path of a file to write; raise argparse.ArgumentTypeError, before minutes of work, if it cannot be."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written: permission denied")
    return path


def existing_file(text: str) -> Path:
    """Parse the path of a file to read; raise argparse.ArgumentTypeError if there is none."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


def new_plot(text: str) -> Path:
    """Parse the path of a picture to draw; raise argparse.ArgumentTypeError without matplotlib or its folder."""
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("needs matplotlib, which is not installed: pip install matplotlib")
    return new_file(text)
