"""The scores of an alignment as a table for people."""

from typing import Any

from rich.table import Table

from dist_s2s import counted
from dist_s2s.analysis.alignment.scores import NAMES
from dist_s2s.analysis.console import table_console


def show_scores(answer: dict[str, Any]) -> None:
    """Print the scores, in percent, with their intervals; or what is known without a test."""
    console = table_console()
    console.print(
        f"{answer['source']['words']:,} and {counted(answer['target']['words'], 'word')}, "
        f"{counted(answer['dimension'], 'dimension')}, "
        f"{counted(answer['training_pairs'], 'pair')} learnt from, mean similarity {answer['mean_similarity']:.4f}"
    )
    if not answer["scores"]:
        return
    tested = counted(answer["test_words"], "word that was", "words that were")
    table = Table(title=f"{tested} held out; 95 % intervals of the bootstrap")
    for heading in ("mapping", "retrieval"):
        table.add_column(heading)
    for name in NAMES:
        table.add_column(f"{name} %", justify="right", no_wrap=True)
    for row in answer["scores"]:
        table.add_row(row["mapping"], row["retrieval"], *(_percent(row[name]) for name in NAMES))
    console.print(table)


def _percent(score: dict[str, float]) -> str:
    value = 100 * score["value"]
    if "low" not in score:
        return f"{value:.2f}"
    return f"{value:.1f} ({100 * score['low']:.1f} – {100 * score['high']:.1f})"
