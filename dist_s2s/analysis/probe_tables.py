"""What a probe has found, as tables for people."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dist_s2s.analysis.answers import Answer


def show_probe(answer: Answer) -> None:
    """Print the errors and the worst sentences of a probe, and what had to be left out."""
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, highlight=False, emoji=False)
    errors = answer["errors"]
    if errors is not None:
        scores = errors["scores"]
        console.print(f"{errors['sentences']:,} pairs: BLEU {scores['bleu']:.2f}, chrF {scores['chrf']:.2f}")
        console.print(_length_table(errors["by_length"]))
        if errors["by_frequency"] is not None:
            console.print(_word_table("occurrences in training", errors["by_frequency"]))
        parts = [{**each, "label": f"part {each['first']}"} for each in errors["by_position"]]
        console.print(_word_table("part of the sentence", parts))
        console.print(_worst_table(answer["worst"]))
    for looks in answer["attention"][: len(answer["attention"]) - len(answer["worst"])]:
        console.print(f"{looks['sentence']} → {looks['translation']}   {looks['alignment']}")
    for note in answer["notes"]:
        console.print(f"note: {note}")


def _length_table(rows: Sequence[Answer]) -> Table:
    table = _table("source words", "sentences", "BLEU", "chrF", "length ratio")
    for row in rows:
        scores = (f"{row[key]:.2f}" for key in ("bleu", "chrf"))
        table.add_row(_range(row), f"{row['sentences']:,}", *scores, _share(row["length_ratio"]))
    return table


def _word_table(heading: str, rows: Sequence[Answer]) -> Table:
    table = _table(heading, "reference words", "recall", "translated words", "precision", "F1")
    for row in rows:
        table.add_row(
            row.get("label") or _range(row),
            f"{row['expected']:,}",
            _share(row["recall"]),
            f"{row['written']:,}",
            _share(row["precision"]),
            _share(row["f1"]),
        )
    return table


def _worst_table(rows: Sequence[Answer]) -> Table:
    table = Table()
    for heading in ("pair", "chrF"):
        table.add_column(heading, justify="right")
    for heading in ("source", "reference", "translation"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(f"{row['number']:,}", f"{row['chrf']:.1f}", row["source"], row["reference"], row["translation"])
    return table


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _range(row: Answer) -> str:
    first, last = row["first"], row["last"]
    return f"{first:,} or more" if last is None else f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _share(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"
