"""A table of how recorded vectors have moved."""

from dataclasses import replace

import numpy as np
from rich.table import Table

from dist_s2s.analysis.evolution import cosine_to_first, drift_from_first, nearest, norms
from dist_s2s.storage.recorded_vectors import RecordedVectors

HEADINGS = ("word", "steps", "norm first", "last", "drift", "cosine", "nearest first", "nearest last")
_TEXTS = ("word", "nearest first", "nearest last")
_NEIGHBOURS = 3


def evolution_table(records: RecordedVectors, title: str) -> Table:
    """Return a line for each word; see ``evolution_rows``."""
    table = Table(title=title, title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in _TEXTS else "right")
    for row in evolution_rows(records):
        table.add_row(*row)
    return table


def evolution_rows(records: RecordedVectors) -> list[list[str]]:
    """Return for each word its drift, its norms, and its nearest recorded words at first and at last."""
    if len(records.steps):  # look only at those in which some word is there for the first or the last time
        is_absent = np.any(np.isnan(records.rows), axis=2)
        ends = np.unique([is_absent.argmin(axis=0), len(records.steps) - 1 - is_absent[::-1].argmin(axis=0)])
        records = replace(records, steps=records.steps[ends], rows=records.rows[ends])
    figures = [norms(records.rows), drift_from_first(records.rows), cosine_to_first(records.rows)]
    near, _ = nearest(records.rows, _NEIGHBOURS)
    rows = []
    for place, word in enumerate(records.words):
        there = np.flatnonzero(~np.isnan(figures[0][:, place]))
        if len(there) == 0:
            rows.append([word.word, "none", *[""] * (len(HEADINGS) - 2)])
            continue
        first, last = there[0], there[-1]
        norm, drift, cosine = (figure[:, place] for figure in figures)
        neighbours = [
            " ".join(records.words[other].word for other in near[record, place] if other >= 0)
            for record in (first, last)
        ]
        steps = f"{records.steps[first]:,}–{records.steps[last]:,}"
        values = (norm[first], norm[last], drift[last], cosine[last])
        rows.append([word.word, steps, *(f"{value:.3f}" for value in values), *neighbours])
    return rows
