"""Sentences to translate: UTF-8 lines from a file or a pipe, in the groups in which they arrive."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.text.inputs.lines import utf16_form
from dist_s2s.text.inputs.packed import ZIP_MAGIC, compression
from dist_s2s.text.lines import visible_text

_BYTES_AT_A_TIME = 1 << 16
_LINES_AT_A_TIME = 10_000
_PAUSE_SECONDS = 0.02  # a sender that is silent for so long waits for an answer


def read_groups(descriptor: int, name: str, size: int, *, may_pause: bool) -> Iterator[list[str]]:
    """Yield the lines of a file or pipe, without their ends, as groups of at most ``size``.

    Byte order marks at the beginning of a line are dropped. A line without visible characters, such as one of
    zero-width spaces, becomes an empty one.

    Args:
        descriptor: of the open file, or of a pipe, socket or terminal.
        name: what to call it in errors.
        size: lines of a full group.
        may_pause: a group ends earlier where nothing more has come for a while, so that a program that waits for an
            answer gets one. Then groups depend on time.

    Raises:
        UserError: text that is not UTF-8; its line is named.
    """
    unfinished, number, lines = list[bytes](), 0, list[str]()
    while data := os.read(descriptor, _BYTES_AT_A_TIME):
        if number == 0 and not unfinished:
            _check_kind(data, name)
        *complete, rest = data.split(b"\n")
        for line in complete:
            number += 1
            lines.append(_text(b"".join([*unfinished, line]), name, number))
            unfinished = []
            if len(lines) == size:
                yield lines
                lines = []
        unfinished.append(rest)
        if lines and may_pause and not select.select([descriptor], [], [], _PAUSE_SECONDS)[0]:
            yield lines
            lines = []
    if rest := b"".join(unfinished):
        lines.append(_text(rest, name, number + 1))
    if lines:
        yield lines


def read_lines(path: Path) -> list[str]:
    """Return all lines of a file, each as ``read_groups`` gives it; raises what it does."""
    with open(path, "rb", buffering=0) as file:
        groups = read_groups(file.fileno(), str(path), _LINES_AT_A_TIME, may_pause=False)
        return [line for group in groups for line in group]


def _check_kind(beginning: bytes, name: str) -> None:
    """Raise UserError for what is not text, and for UTF-16."""
    if (program := compression(beginning)) is not None:
        raise UserError(f"{name} is compressed; unpack it first: {program} -dc FILE > TEXT")
    if beginning.startswith(ZIP_MAGIC):
        raise UserError(f"{name} is a zip archive; unpack it first, and give the text file in it")
    if (form := utf16_form(beginning)) is not None:
        raise UserError(f"{name} is UTF-16; {_convert(form)}")


def _text(line: bytes, name: str, number: int) -> str:
    """Return the text of a line.

    Raises:
        UserError: it is not UTF-8, or has a NUL character.
    """
    if b"\0" in line:
        raise UserError(f"{name} line {number} has a NUL character, as no text has; is it UTF-8?")
    try:
        return visible_text(line.decode("utf-8").removesuffix("\r"))
    except UnicodeDecodeError as error:
        before = f"the {number - 1:,} lines before it are, so encodings are mixed; " if number > 1 else ""
        raise UserError(
            f"{name} line {number} is not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x} "
            f"({error.reason}); {before}{_convert('ENCODING')}"
        ) from None


def _convert(encoding: str) -> str:
    return f"convert it: iconv -f {encoding} -t UTF-8 FILE > TEXT"
