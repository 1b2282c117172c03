"""Tab-separated columns: two, Anki's three, or any two of many."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Input, Parsed
from dist_s2s.text.inputs.keys import check_two
from dist_s2s.text.inputs.lines import Lines, line_blocks
from dist_s2s.text.inputs.packed import PackedFile

_EXPECTED = "SOURCE<TAB>TARGET"
_SAMPLE_LINES = 200


@dataclass(frozen=True)
class Columns:
    """Which columns hold the two sides, counted from 0, and how many there are; None: as many as it takes."""

    source: int
    target: int
    width: int | None = None


TWO_COLUMNS = Columns(0, 1, 2)


@dataclass(frozen=True, slots=True)
class TsvBlock:
    """Lines of a tab-separated file."""

    lines: Lines
    columns: Columns

    def parse(self) -> Parsed:
        """Cut each line into its columns."""
        parsed, lines = Parsed(), self.lines
        source, target, width = self.columns.source, self.columns.target, self.columns.width
        if width == 2 and (whole := lines.in_two()) is not None:
            parsed.pairs = list(zip(whole[source::2], whole[target::2], strict=True))
            return parsed
        least = max(source, target) + 1
        for index, line in enumerate(lines.decode()):
            if isinstance(line, BadLine):
                parsed.bad.append(line)
                continue
            fields = line.split("\t")
            if len(fields) != width if width is not None else len(fields) < least:
                problem = _wrong_width(len(fields), width, least)
            elif not fields[source].strip():
                problem = "has an empty source"
            elif not fields[target].strip():
                problem = "has an empty target"
            else:
                parsed.pairs.append((fields[source], fields[target]))
                continue
            parsed.bad.append(BadLine(lines.file, lines.place(index), problem))
        return parsed


def tsv_input(file: PackedFile, columns: str | None, head: bytes) -> Input:
    """Return the reader of a tab-separated file.

    Args:
        file: the file.
        columns: two numbers, from 1 on, such as `1,3`; None: they are told by the file.
        head: its first bytes.

    Raises:
        UserError: it has more than two columns, and none were chosen.
    """
    if columns is not None:
        source, target = _numbers(columns)
        return _input(file, Columns(source - 1, target - 1), f"columns {source} and {target}, as given")
    lines = [line for line in head.decode("utf-8", "replace").split("\n")[:_SAMPLE_LINES] if line.strip()]
    tabs = Counter(line.count("\t") for line in lines).most_common(1)
    width = tabs[0][0] + 1 if tabs else 2
    if width == 3 and _is_anki(lines):
        return _anki_input(file)
    if width > 2:
        raise UserError(f"{file} has {width} columns: say which two are source and target, as in --columns 1,2")
    return _input(file, TWO_COLUMNS, "two columns")


def _input(file: PackedFile, columns: Columns, decided: str) -> Input:
    return Input([file.path], f"{file}: {decided}", partial(_blocks, file, columns))


def _blocks(file: PackedFile, columns: Columns) -> Iterator[TsvBlock]:
    with file.reading() as stream:
        for lines in line_blocks(stream, str(file)):
            yield TsvBlock(lines, columns)


def _is_anki(lines: list[str]) -> bool:
    """Tell whether most third columns are attributions, as in the files of manythings.org/anki."""
    thirds = [line.rpartition("\t")[2] for line in lines]
    return 2 * sum(third.lstrip().startswith("CC-BY") for third in thirds) > len(thirds)


def _anki_input(file: PackedFile) -> Input:
    """Take the direction from the archive's name: in `cmn-eng.zip` English stands first, but is the target."""
    named = re.match(r"([a-z]{3})-eng\b", file.path.name.lower())
    if named and file.member is not None:
        decided = f"Anki's three columns, from 2 to 1: {named[1]}-eng by its name, in which English comes first"
        return _input(file, Columns(1, 0, 3), f"{decided} (--columns 1,2 for the other direction)")
    return _input(file, Columns(0, 1, 3), "Anki's three columns, from 1 to 2 (--columns 2,1 for the other direction)")


def _numbers(columns: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([1-9]\d*)\s*,\s*([1-9]\d*)\s*", columns)
    if found is None:
        raise UserError(f"--columns of a tab-separated file are two numbers, such as 1,2, but are {columns!r}")
    numbers = int(found[1]), int(found[2])
    check_two(numbers, columns)
    return numbers


def _wrong_width(found: int, width: int | None, least: int) -> str:
    expected = f"expected {_EXPECTED}" if width == 2 else f"expected {width or f'at least {least}'} columns"
    tabs = {1: "no tab", 2: "1 tab"}.get(found, f"{found - 1} tabs")
    return f"has {tabs}: {expected}"
