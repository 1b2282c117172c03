"""What a probe has found, as tables for people."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from dist_s2s import counted
from dist_s2s.analysis.answers import Answer
from dist_s2s.analysis.console import table_console


def show_probe(answer: Answer) -> None:
    """Print the errors and the worst sentences of a probe, and what had to be left out."""
    console = table_console()
    errors = answer["errors"]
    if errors is not None:
        scores = errors["scores"]
        console.print(f"{counted(errors['sentences'], 'pair')}: BLEU {scores['bleu']:.2f}, chrF {scores['chrf']:.2f}")
        console.print(_length_table(errors["by_length"]))
        if errors["by_frequency"] is not None:
            console.print(word_table("occurrences in training", errors["by_frequency"]))
        parts = [{**each, "label": f"part {each['first']}"} for each in errors["by_position"]]
        console.print(word_table("part of the sentence", parts))
        console.print(_worst_table(answer["worst"]))
    for looks in answer["attention"][: len(answer["attention"]) - len(answer["worst"])]:
        console.print(f"{looks['sentence']} → {looks['translation']}   {looks['alignment']}")
    for note in answer["notes"]:
        console.print(f"note: {note}")


def _length_table(rows: Sequence[Answer]) -> Table:
    table = number_table("source words", "sentences", "BLEU", "chrF", "length ratio")
    for row in rows:
        scores = (f"{row[key]:.2f}" for key in ("bleu", "chrf"))
        table.add_row(range_in_words(row), f"{row['sentences']:,}", *scores, share_in_words(row["length_ratio"]))
    return table


def word_table(heading: str, rows: Sequence[Answer]) -> Table:
    """Return how many words of each row are right; a row without a ``label`` is one of a range."""
    table = number_table(heading, "reference words", "recall", "translated words", "precision", "F1")
    for row in rows:
        table.add_row(
            row.get("label") or range_in_words(row),
            f"{row['expected']:,}",
            share_in_words(row["recall"]),
            f"{row['written']:,}",
            share_in_words(row["precision"]),
            share_in_words(row["f1"]),
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


def number_table(first: str, *others: str) -> Table:
    """Return a table without rows, whose numbers end in the same place."""
    table = Table()
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def range_in_words(row: Answer) -> str:
    """Return what to call the range from ``first`` to ``last``."""
    first, last = row["first"], row["last"]
    return f"{first:,} or more" if last is None else f"{first:,}" if first == last else f"{first:,}–{last:,}"


def share_in_words(value: Any) -> str:
    """Return a share with three digits; nothing for None."""
    return "" if value is None else f"{value:.3f}"
