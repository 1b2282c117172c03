"""A picture of how recorded vectors move: for each word its path, and its drift over the steps."""

from pathlib import Path
from typing import Any

import numpy as np

from dist_s2s import UserError
from dist_s2s.analysis.evolution import Floats, drift_from_first, first_rows, principal_plane
from dist_s2s.analysis.pictures import fonts, new_figure, write_figure
from dist_s2s.storage.recorded_vectors import Ints, RecordedVectors
from dist_s2s.text.extras import extra

_PURPOSE = "a picture of the evolution"
_COLUMNS, _CELL_INCHES, _HEAD_INCHES = 6, (1.9, 2.7), 1.0
_OTHERS, _OWN, _TEXT = "#d8d8d4", "#1c5a9c", "#6b6b68"


def draw_evolution(records: RecordedVectors, title: str, output: Path) -> str:
    """Draw small multiples, a cell for each word that any record has, and write them to a file.

    A cell shows the path of the word's vector, and below it the distance from its first vector over the steps; the
    other words are there in grey. All paths begin at the same point and lie in one plane, that of the two principal
    components of all words' moves: the vectors themselves lie much further apart than they move.

    Args:
        records: of one side.
        title: the first line.
        output: its suffix says the format, such as .png, .svg or .pdf. It is replaced if it exists.

    Returns:
        What the user must know of characters that no font has; empty if there is nothing.

    Raises:
        UserError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
    """
    drawn = np.flatnonzero(~np.isnan(records.rows).any(axis=2).all(axis=0))
    if len(drawn) == 0:
        raise UserError("none of the words has been recorded yet; wait for the run's next checkpoint")
    labels = [records.words[place].word for place in drawn]
    labels = [
        label if (step := records.words[place].absent_after) is None else f"{label}  (gone after {step:,})"
        for label, place in zip(labels, drawn, strict=True)
    ]
    with fonts([title, *labels], _PURPOSE, size=7) as warning:
        write_figure(_figure(records.steps, records.rows[:, drawn], labels, title), output)
    return warning


def _figure(steps: Ints, rows: Any, labels: list[str], title: str) -> Any:
    """Return the figure: a head, and a grid of cells."""
    columns = min(_COLUMNS, len(labels))
    lines = -(-len(labels) // columns)
    size = max(columns, 3) * _CELL_INCHES[0], lines * _CELL_INCHES[1] + _HEAD_INCHES
    figure = new_figure(size, _PURPOSE)
    plane, explained = principal_plane(rows - first_rows(rows))
    drift = drift_from_first(rows)
    grid = figure.add_gridspec(
        lines, columns, top=1 - _HEAD_INCHES / size[1], bottom=0.45 / size[1], left=0.06, right=0.98, hspace=0.28
    )
    for place, label in enumerate(labels):
        cell = grid[place // columns, place % columns].subgridspec(2, 1, height_ratios=(5, 2), hspace=0.08)
        path, curve = figure.add_subplot(cell[0]), figure.add_subplot(cell[1])
        _draw_path(path, plane, place)
        _draw_drift(curve, steps, drift, place)
        path.set_title(label, fontsize=10, pad=3)
        curve.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(labels))
    figure.text(0.02, 1 - 0.12 / size[1], title, fontsize=12, va="top")
    how = (
        f"above: how a vector moves, from ○ (step {steps[0]:,}) to ● (step {steps[-1]:,}), in the plane that shows "
        f"most of all moves, {explained.sum():.0%} of their variance\n"
        "below: its distance from where it began, over the steps; in grey, the other words"
    )
    figure.text(0.02, 1 - 0.36 / size[1], how, fontsize=7, color=_TEXT, va="top")
    return figure


def _draw_path(axes: Any, plane: Floats, place: int) -> None:
    """Draw the path of one word, over those of the others."""
    _draw_others(axes, plane.transpose(1, 0, 2))
    path = plane[~np.isnan(plane[:, place, 0]), place]
    axes.plot(*path.T, color=_OWN, linewidth=1.2)
    axes.plot(*path[0], "o", color=_OWN, markerfacecolor="white", markersize=4)
    axes.plot(*path[-1], "o", color=_OWN, markersize=4)
    axes.margins(0.08)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(_OTHERS)


def _draw_drift(axes: Any, steps: Ints, drift: Floats, place: int) -> None:
    """Draw the drift of one word, over those of the others."""
    lines = np.empty((*drift.T.shape, 2))
    lines[..., 0], lines[..., 1] = steps, drift.T
    _draw_others(axes, lines)
    axes.plot(steps, drift[:, place], color=_OWN, linewidth=1.2)
    axes.set_ylim(0, max(np.nanmax(drift), 1e-9) * 1.05)
    axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_TEXT)
    axes.tick_params(labelsize=6, length=2, color=_TEXT, labelcolor=_TEXT)


def _draw_others(axes: Any, lines: Floats) -> None:
    """Draw all lines, [N, R, 2], in grey."""
    collections = extra("matplotlib.collections", "analysis", _PURPOSE)
    axes.add_collection(collections.LineCollection(list(lines), colors=_OTHERS, linewidths=0.5, zorder=1))
