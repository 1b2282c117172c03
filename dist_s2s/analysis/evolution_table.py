"""A table of how recorded vectors have moved, for the terminal."""

import numpy as np
from rich.table import Table

from dist_s2s.analysis.evolution import cosine_to_first, drift_from_first, nearest, norms
from dist_s2s.storage.recorded_vectors import RecordedVectors

_NEIGHBOURS = 3


def evolution_table(records: RecordedVectors, title: str) -> Table:
    """Return a line for each word: its drift, its norms, and its nearest recorded words at first and at last."""
    table = Table(title=title, title_justify="left")
    table.add_column("word")
    for heading in ("steps", "norm first", "last", "drift", "cosine"):
        table.add_column(heading, justify="right")
    table.add_column("nearest first")
    table.add_column("last")
    figures = [norms(records.rows), drift_from_first(records.rows), cosine_to_first(records.rows)]
    near, _ = nearest(records.rows, _NEIGHBOURS)
    for place, word in enumerate(records.words):
        there = np.flatnonzero(~np.isnan(figures[0][:, place]))
        if len(there) == 0:
            table.add_row(word.word, "none")
            continue
        first, last = there[0], there[-1]
        norm, drift, cosine = (figure[:, place] for figure in figures)
        neighbours = [
            " ".join(records.words[other].word for other in near[record, place] if other >= 0)
            for record in (first, last)
        ]
        table.add_row(
            word.word,
            f"{records.steps[first]:,}–{records.steps[last]:,}",
            *(f"{value:.3f}" for value in (norm[first], norm[last], drift[last], cosine[last])),
            *neighbours,
        )
    return table
