"""JSON lines: an object a line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Input, Parsed, add_pair
from dist_s2s.text.inputs.keys import choose_keys, value_at
from dist_s2s.text.inputs.lines import Lines, line_blocks
from dist_s2s.text.inputs.packed import PackedFile


@dataclass(frozen=True, slots=True)
class JsonBlock:
    """Lines of a file with an object in each."""

    lines: Lines
    keys: tuple[str, str]

    def parse(self) -> Parsed:
        """Take both keys from each object."""
        parsed, lines = Parsed(), self.lines
        for index, line in enumerate(lines.decode()):
            if isinstance(line, BadLine):
                parsed.bad.append(line)
                continue
            place = lines.place(index)
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
                parsed.bad.append(BadLine(lines.file, place, f"is not JSON: {reason}"))
                continue
            if not isinstance(entry, dict):
                parsed.bad.append(BadLine(lines.file, place, "is not a JSON object"))
                continue
            source, target = (value_at(entry, key) for key in self.keys)
            add_pair(parsed, lines.file, place, source, target)
        return parsed


def json_input(file: PackedFile, columns: str | None, head: bytes) -> Input:
    """Return the reader of a file of JSON lines.

    Args:
        file: the file.
        columns: two keys, such as `source,target` or `translation.de,translation.en`; None: those of its first
            object, if only two hold text.
        head: its first bytes.

    Raises:
        UserError: it cannot be told which keys are meant, or the file is one JSON array.
    """
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin.startswith(b"["):
        raise UserError(f"{file} is one JSON array: write an object a line (jq -c '.[]')")
    keys, decided = choose_keys(str(file), columns, lambda: _first_object(begin))
    description = f"{file}: JSON lines, from {keys[0]} to {keys[1]}, {decided}"
    return Input([file.path], description, partial(_blocks, file, keys))


def _blocks(file: PackedFile, keys: tuple[str, str]) -> Iterator[JsonBlock]:
    with file.reading() as stream:
        for lines in line_blocks(stream, str(file)):
            yield JsonBlock(lines, keys)


def _first_object(begin: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(begin.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}
