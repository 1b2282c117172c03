"""Tables on the console."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def wide_console(columns: int = 140) -> Console:
    """Return a console of at least ``columns`` columns: a pipe has 80, which would cut names and break lines."""
    console = Console()
    console.width = max(console.width, columns)
    return console


def print_table(
    title: str, labels: Sequence[str], figures: Sequence[str], rows: Iterable[Sequence[str] | None]
) -> None:
    """Print a table of texts.

    Args:
        title: What stands above it.
        labels: Headings of the first columns, aligned left.
        figures: Headings of the other columns, aligned right.
        rows: The cells of each row; None draws a line.
    """
    table = Table(title=title)
    for heading in labels:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right")
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    wide_console().print(table)
