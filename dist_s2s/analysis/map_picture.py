"""A picture of points in a plane, with as many labels as fit beside each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_s2s.analysis.pictures import fonts, new_figure, write_figure
from dist_s2s.text.extras import extra

_PURPOSE = "a map"
_SIZE, _HEAD = (10.0, 9.0), 0.7  # inches
_DPI = 120
_POINT, _TEXT, _GAP = "#1c5a9c", "#6b6b68", 4.0  # pixels between a point and its label
_LONGEST = 40
# Where a label may stand: the shares of its width and height that lie left of and below its point, and the gap's signs.
_SPOTS = ((0, 0.5, 1, 0), (1, 0.5, -1, 0), (0.5, 0, 0, 1), (0.5, 1, 0, -1), (0, 0, 1, 1), (1, 0, -1, 1), (0, 1, 1, -1))

Boxes = NDArray[np.float64]  # [N, 4]: left, bottom, right, top; NaN for a label that has no room


def draw_map(
    places: NDArray[np.floating], labels: Sequence[str], title: str, how: str, output: Path, equal: bool = False
) -> str:
    """Draw labelled points and write them to a file.

    A label stands beside its point and on no other label; one for which there is no such spot is left out. Points that
    come first choose first.

    Args:
        places: [N, 2].
        labels: of the points; an empty one is not drawn.
        title, how: the lines above.
        output: its suffix says the format. It is replaced if it exists.
        equal: distances mean something, so that both axes have one scale, which is shown.

    Returns:
        What the user must know of characters that no font has; empty if there is nothing.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    shown = [label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…" for label in labels]
    with fonts([title, how, "…", *shown], _PURPOSE, size=9) as warning:
        figure = new_figure(_SIZE, _PURPOSE)
        extra("matplotlib.backends.backend_agg", "analysis", _PURPOSE).FigureCanvasAgg(figure)
        figure.set_dpi(_DPI)
        axes = figure.add_axes((0.06, 0.05, 0.91, 1 - 0.07 - _HEAD / _SIZE[1]))
        axes.scatter(*places.T, s=9, color=_POINT, alpha=0.75, linewidths=0, zorder=3)
        axes.margins(0.07)
        if equal:
            axes.set_aspect("equal", adjustable="datalim")
        else:
            axes.tick_params(labelleft=False, labelbottom=False)
        axes.grid(color="#ececea", linewidth=0.6, zorder=0)
        axes.tick_params(labelsize=7, length=0, labelcolor=_TEXT)
        axes.spines[:].set_visible(False)
        written = _add_labels(figure, axes, places, shown)
        wanted = sum(map(bool, shown))
        left_out = f"; {wanted - written:,} of {wanted:,} labels have no room" if written < wanted else ""
        figure.text(0.03, 1 - 0.14 / _SIZE[1], title, fontsize=13, va="top")
        figure.text(0.03, 1 - 0.44 / _SIZE[1], how + left_out, fontsize=8, color=_TEXT, va="top")
        write_figure(figure, output, _DPI)
    return warning


def place_labels(points: Boxes, sizes: Boxes, bounds: tuple[float, float, float, float]) -> Boxes:
    """Return a box for each label beside its point, within the bounds and on no other label; NaN where there is none.

    Args:
        points: [N, 2].
        sizes: width and height of the labels, [N, 2]; of width 0 for none.
        bounds: left, bottom, right and top.
    """
    boxes = np.full((len(points), 4), np.nan)
    for place, ((x, y), (width, height)) in enumerate(zip(points, sizes, strict=True)):
        for left_share, below_share, right, up in _SPOTS if width else ():
            left, bottom = x - left_share * width + right * _GAP, y - below_share * height + up * _GAP
            box = np.array((left, bottom, left + width, bottom + height))
            is_inside = (box[:2] >= bounds[:2]).all() and (box[2:] <= bounds[2:]).all()
            if is_inside and not _overlaps(box, boxes[:place]).any():
                boxes[place] = box
                break
    return boxes


def _overlaps(box: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """Tell which boxes, NaN for none, share an area with a box."""
    found: NDArray[np.bool_] = (
        (others[:, 0] < box[2]) & (others[:, 2] > box[0]) & (others[:, 1] < box[3]) & (others[:, 3] > box[1])
    )
    return found


def _add_labels(figure: Any, axes: Any, places: NDArray[np.floating], labels: Sequence[str]) -> int:
    """Write the labels that have room, and return how many."""
    figure.draw_without_rendering()  # the scale of the axes is known only then
    points = axes.transData.transform(places)
    window = axes.get_window_extent()
    texts = [axes.text(0, 0, label, fontsize=9, transform=None, va="bottom", zorder=4) for label in labels]
    sizes = np.array([(text.get_window_extent().width, text.get_window_extent().height) for text in texts])
    boxes = place_labels(points, sizes, (window.x0, window.y0, window.x1, window.y1))
    for text, box in zip(texts, boxes, strict=True):
        if np.isnan(box[0]):
            text.remove()
        else:
            text.set_position(axes.transAxes.inverted().transform(box[:2]))
            text.set_transform(axes.transAxes)
    return int((~np.isnan(boxes[:, 0])).sum())
