"""What a report is made of: plain values, whatever page they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dist_s2s.analysis.word_map import WordMap

Points = Sequence[tuple[float, float]]  # (x, y)


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Missing:
    """What a section cannot show, and why."""

    reason: str


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Cells in rows; the first of each names it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Lines:
    """Curves over one x axis."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]


@dataclass(frozen=True)
class Bars:
    """For each name a bar of each group, ``names`` long."""

    title: str
    y: str
    names: Sequence[str]
    groups: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Heat:
    """Numbers from -1 to 1, by the words of their rows and columns."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Map:
    """Words in a plane."""

    title: str
    words: WordMap


@dataclass(frozen=True)
class Sentence:
    """Texts with what they are, such as a source and its translation, and what the translation looks at."""

    title: str
    texts: Sequence[tuple[str, str]]
    attention: Heat | None = None


@dataclass(frozen=True)
class Code:
    """Lines to be read as they are."""

    title: str
    text: str


Block = Note | Missing | Facts | Table | Lines | Bars | Heat | Map | Sentence | Code


@dataclass(frozen=True)
class Section:
    """Blocks below a heading; ``anchor`` is what links to it name."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """All that a page shows of a run.

    Attributes:
        title: the run's name.
        about: a line below it.
    """

    title: str
    about: str
    sections: Sequence[Section] = field(default_factory=list)
