"""Where the benchmarks print their tables."""

from rich.console import Console


def wide_console(columns: int) -> Console:
    """A console of at least so many columns: a pipe has 80, which would cut names and break lines."""
    console = Console()
    console.width = max(console.width, columns)
    return console
