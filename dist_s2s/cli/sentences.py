"""Sentences to translate: UTF-8 lines from a file or a pipe, in the groups in which they arrive."""

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dist_s2s import UserError, counted
from dist_s2s.text.inputs.lines import LINE_BYTES, utf16_form
from dist_s2s.text.inputs.packed import ZIP_MAGIC, compression
from dist_s2s.text.lines import visible_text

_BYTES_AT_A_TIME = 1 << 16
_LINES_AT_A_TIME = 10_000
_CHARACTERS_AT_A_TIME = 1 << 20  # a group with as many is full
_PAUSE_SECONDS, _LONGEST_WAIT = 0.005, 0.02  # a sender that is silent for the one, or slow for the other, gets answers


def read_groups(
    descriptor: int, name: str, size: int, *, may_pause: bool, first_size: int | None = None
) -> Iterator[list[str]]:
    """Yield the lines of a file or pipe, without their ends, as groups of at most ``size``.

    Byte order marks at the beginning of a line are dropped. A line without visible characters, such as one of
    zero-width spaces, becomes an empty one.

    Args:
        descriptor: of the open file, or of a pipe, socket or terminal.
        name: what to call it in errors.
        size: lines of a full group.
        may_pause: a group ends where nothing more comes at once, so that whoever sends lines gets answers, however
            slowly they come. Then groups depend on time.
        first_size: lines of the first group, so that its answers come soon; then full groups are twice as large each
            time, up to ``size``.

    Raises:
        UserError: text that is not UTF-8, or a line that is longer than any sentence. It is named, and the lines before
            it are yielded first.
    """
    blocks, lines, fault = _line_blocks(descriptor, name), list[str](), None
    full, characters, deadline = min(first_size or size, size), 0, 0.0
    while True:
        try:
            block = next(blocks, None)
        except UserError as error:
            fault = error
            break
        if block is None:
            break
        deadline = deadline if lines else time.monotonic() + _LONGEST_WAIT
        for line in block:
            lines.append(line)
            characters += len(line)
            if len(lines) == full or characters >= _CHARACTERS_AT_A_TIME:
                yield lines
                lines, full, characters = [], min(2 * full, size), 0
        if lines and may_pause and not _more_comes(descriptor, deadline):
            yield lines
            lines, characters = [], 0
    if lines:
        yield lines
    if fault is not None:
        raise fault


def until_fault(
    groups: Iterable[list[str]], name: str, fault: Callable[[list[str], int], tuple[int, str] | None]
) -> Iterator[list[str]]:
    """Yield groups of lines up to the first line with a fault.

    Args:
        groups: as ``read_groups`` gives them.
        name: what to call the input in errors.
        fault: takes a group and how many lines come before it; returns the place of the first line in it that has a
            fault, and what is wrong with it; None if nothing is.

    Raises:
        UserError: a line has a fault. It is named, and the lines before it are yielded first.
    """
    begin = 0
    for group in groups:
        found = fault(group, begin)
        if found is not None:
            place, text = found
            if place:
                yield group[:place]
            raise UserError(f"{name} line {begin + place + 1} {text}")
        yield group
        begin += len(group)


def _more_comes(descriptor: int, deadline: float) -> bool:
    """Wait a little for more to read, but no longer than up to the deadline; tell whether there is some."""
    left = deadline - time.monotonic()
    return left > 0 and bool(select.select([descriptor], [], [], min(_PAUSE_SECONDS, left))[0])


def _line_blocks(descriptor: int, name: str) -> Iterator[list[str]]:
    """Yield the complete lines of what each read gives; raise UserError after those before the fault."""
    unfinished, number = list[bytes](), 0
    while data := os.read(descriptor, _BYTES_AT_A_TIME):
        if number == 0 and not unfinished:
            _check_kind(data, name)
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join([*unfinished, complete[0]])
            unfinished = []
            yield from _texts(complete, name, number)
            number += len(complete)
        unfinished.append(rest)
        if b"\0" in rest:
            _text(rest, name, number + 1)
        if sum(map(len, unfinished)) > LINE_BYTES:
            raise UserError(f"{name} line {number + 1} is longer than {LINE_BYTES >> 20} MiB, which is no sentence")
    if rest := b"".join(unfinished):
        yield [_text(rest, name, number + 1)]


def _texts(lines: list[bytes], name: str, number: int) -> Iterator[list[str]]:
    """Yield the texts of lines that follow line ``number``; raise UserError after those before a fault."""
    texts = list[str]()
    try:
        for line in lines:
            texts.append(_text(line, name, number + len(texts) + 1))
    except UserError:
        yield texts
        raise
    yield texts


def check_shared(paths: Iterable[Path | None], world_size: int) -> None:
    """Raise UserError for what several ranks would read that can be read only once, such as a pipe."""
    for path in paths:
        if world_size > 1 and path is not None and path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"several ranks cannot share {path}, which is not a file; write it to a file first")


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
        before = (
            f"the {counted(number - 1, 'line before it is', 'lines before it are')}, so encodings are mixed; "
            if number > 1
            else ""
        )
        raise UserError(
            f"{name} line {number} is not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x} "
            f"({error.reason}); {before}{_convert('ENCODING')}"
        ) from None


def _convert(encoding: str) -> str:
    return f"convert it: iconv -f {encoding} -t UTF-8 FILE > TEXT"
