"""A heat map of what a translation looks at."""

from pathlib import Path
from typing import Any

import numpy as np

from dist_s2s.analysis.pictures import fonts, new_figure, write_figure
from dist_s2s.text.extras import extra
from dist_s2s.text.tokenizers.spaces import is_unspaced
from dist_s2s.translation.attention import WordAttention

MOST_WORDS = 60  # of either sentence; what comes after them is not drawn
_PURPOSE = "a picture of attention"
_END = "⟨end⟩"
_CELL, _LETTER = 0.34, 0.085  # inches
_LONGEST_LINE, _LONGEST_WORD = 110, 24  # characters
_ALIGNED, _TEXT = "#c2410c", "#6b6b68"


def draw_attention(looks: WordAttention, texts: list[tuple[str, str]], output: Path) -> str:
    """Draw the weights as a matrix: a row for each word of the translation, a column for each of the source.

    The source word that each word aligns with has a frame.

    Args:
        looks: of one sentence.
        texts: what is written above, each a heading and a sentence.
        output: its suffix says the format. It is replaced if it exists.

    Returns:
        What the user must know of characters that no font has; empty if there is nothing.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    lines = [f"{heading}: {_short(text, _LONGEST_LINE)}" for heading, text in texts]
    rows, columns = min(len(looks.target), MOST_WORDS), min(len(looks.source), MOST_WORDS)
    if (rows, columns) != (len(looks.target), len(looks.source)):
        lines.append(
            f"the first {rows:,} of {len(looks.target):,} words, and {columns:,} of {len(looks.source):,} source words"
        )
    labels = [_short(word, _LONGEST_WORD) for word in (*looks.source[:columns], *looks.target[:rows])]
    with fonts([*lines, *labels, _END, "…"], _PURPOSE, size=10) as warning:
        write_figure(_figure(looks, labels, rows, columns, lines), output)
    return warning


def _figure(looks: WordAttention, labels: list[str], rows: int, columns: int, lines: list[str]) -> Any:
    """Return the figure; the ends of both sentences are drawn as well."""
    source, target = [*labels[:columns], _END], [*labels[columns:], _END]
    weights = looks.weights[np.ix_([*range(rows), -1], [*range(columns), -1])]
    left, above = (0.35 + max(map(_width, names)) * _LETTER for names in (target, source))
    head = 0.2 + 0.22 * len(lines)
    width = max(left + _CELL * len(source) + 0.9, 0.4 + max(map(_width, lines)) * _LETTER)
    height = head + above + _CELL * len(target) + 0.25
    figure = new_figure((width, height), _PURPOSE)
    axes = figure.add_axes((left / width, 0.25 / height, _CELL * len(source) / width, _CELL * len(target) / height))
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for column, row in looks.alignment[:rows]:
        if column < columns:
            axes.add_patch(_frame((column - 0.5, row - 0.5)))
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(source)), map(_upright, source))
    for label, word in zip(axes.get_xticklabels(), source, strict=True):
        label.set(rotation=0 if all(map(is_unspaced, word)) else 90, linespacing=1.0)
    axes.set_yticks(range(len(target)), target)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_color("#d8d8d4")
    bar_width = 0.12
    bar = figure.add_axes(
        ((left + _CELL * len(source) + 0.18) / width, 0.25 / height, bar_width / width, axes.get_position().height)
    )
    figure.colorbar(image, cax=bar, ticks=(0, 0.5, 1)).outline.set_visible(False)
    bar.tick_params(labelsize=8, length=2, color=_TEXT, labelcolor=_TEXT)
    for number, line in enumerate(lines):
        figure.text(0.15 / width, 1 - (0.12 + 0.22 * number) / height, line, va="top")
    return figure


def _frame(corner: tuple[float, float]) -> Any:
    rectangle = extra("matplotlib.patches", "analysis", _PURPOSE).Rectangle
    return rectangle(corner, 1, 1, fill=False, edgecolor=_ALIGNED, linewidth=1.3)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _upright(word: str) -> str:
    """Return the label of a column: a word of Chinese characters from top to bottom, others as they are."""
    return "\n".join(word) if all(map(is_unspaced, word)) else word


def _width(text: str) -> int:
    """Return the width of a text in letters; what is written without spaces takes two each."""
    return sum(2 if is_unspaced(character) else 1 for character in text)
