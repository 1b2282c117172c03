"""Curves as text: dots of Braille characters, two a column and four a line."""

from collections.abc import Mapping, Sequence

Points = Sequence[tuple[int, float]]
Canvas = list[list[tuple[int, str]]]  # dots of each character, and the style of the last curve in it

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by line and column within a character
_LABEL = 9  # columns for the values beside the axis


def draw(curves: Mapping[str, Points], width: int, height: int) -> list[list[tuple[str, str]]]:
    """Return the lines of a plot, each as pieces of (text, style).

    Args:
        curves: by style, (step, value); at least one point in all.
        width: in columns, with labels; at least 20.
        height: in lines, without the steps below; at least 2.
    """
    points = [point for curve in curves.values() for point in curve]
    steps, values = [step for step, _ in points], [value for _, value in points]
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    columns = width - _LABEL - 2
    canvas: Canvas = [[(0, "")] * columns for _ in range(height)]
    for style, curve in curves.items():
        places = [
            (
                round((step - first) / max(last - first, 1) * (2 * columns - 1)),
                round((high - value) / ((high - low) or 1) * (4 * height - 1)),
            )
            for step, value in curve
        ]
        for begin, end in zip(places, [*places[1:], *places[-1:]], strict=True):
            _line(canvas, begin, end, style)
    labels = [_number(high), *[""] * (height - 2), _number(low)]
    lines = [
        [(f"{label:>{_LABEL}} ┤", "dim"), *((chr(_BRAILLE + dots) if dots else " ", style) for dots, style in row)]
        for label, row in zip(labels, canvas, strict=True)
    ]
    ends = f"{first:,}", f"{last:,}"
    room = columns - len(ends[0])
    return [*lines, [(f"{' ' * (_LABEL + 2)}{ends[0]}{ends[1]:>{room}}" if first < last else "", "dim")]]


def _line(canvas: Canvas, begin: tuple[int, int], end: tuple[int, int], style: str) -> None:
    """Draw dots from one place to another, in dots from the upper left corner."""
    length = max(abs(end[0] - begin[0]), abs(end[1] - begin[1]), 1)
    for number in range(length + 1):
        x, y = (round(start + (stop - start) * number / length) for start, stop in zip(begin, end, strict=True))
        dots, _ = canvas[y // 4][x // 2]
        canvas[y // 4][x // 2] = (dots | _DOTS[y % 4][x % 2], style)


def _number(value: float) -> str:
    return f"{value:.4g}"
