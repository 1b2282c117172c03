"""Types of command-line arguments that the benchmarks share. Each raises argparse.ArgumentTypeError."""

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


def new_file(text: str) -> Path:
    """A file to write, in a folder that exists: known before minutes of measuring, not after."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}; make it first")
    return path
