"""Blocks of whole lines from a stream of bytes, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine

BLOCK_BYTES = 1 << 22
LINE_BYTES = 1 << 24  # a longer line is refused: whatever it is, it is not a sentence
_BOM = b"\xef\xbb\xbf"
_BYTES_PER_NUL = 32  # at most, of UTF-16
_TAB, _NEWLINE = b"\t\n"


@dataclass(frozen=True, slots=True)
class Lines:
    r"""Some lines of a file, not decoded yet.

    Attributes:
        file: what the file is called.
        first: the number of the first line, from 1.
        data: the lines, with `\n` between them.
    """

    file: str
    first: int
    data: bytes

    def decode(self) -> list[str | BadLine]:
        r"""Return each line without its end (`\n` or `\r\n`), or what is wrong with its encoding."""
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError:
            return [self._decode_line(number, line) for number, line in enumerate(self.data.split(b"\n"))]
        if "\r" in text:
            return [line.removesuffix("\r") for line in text.split("\n")]
        return list(text.split("\n"))

    def in_two(self) -> list[str] | None:
        """Return the two fields of each line, if a tab stands between them in every line and none is blank."""
        data = np.frombuffer(self.data, dtype=np.uint8)
        marks = data[(data == _TAB) | (data == _NEWLINE)]
        if len(marks) % 2 == 0 or (marks[0::2] != _TAB).any() or (marks[1::2] != _NEWLINE).any() or b"\r" in self.data:
            return None
        try:
            fields = self.data.decode("utf-8").replace("\t", "\n").split("\n")
        except UnicodeDecodeError:
            return None
        return fields if all(map(str.strip, fields)) else None

    def place(self, index: int) -> str:
        """Return what to call a line, counted from 0 within these."""
        return f"line {self.first + index}"

    def _decode_line(self, index: int, line: bytes) -> str | BadLine:
        try:
            return line.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            found = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x} ({error.reason})"
            return BadLine(self.file, self.place(index), f"is not UTF-8: {found}")


def line_blocks(stream: BinaryIO, file: str) -> Iterator[Lines]:
    """Yield the lines of a stream in blocks of about `BLOCK_BYTES`, which depend on the content alone.

    A byte-order mark, and blank lines at the very end, are left out.

    Raises:
        UserError: the content is UTF-16, or a line is longer than `LINE_BYTES`.
    """
    pending: list[Lines] = []
    for lines in _whole_lines(stream, file):
        if lines.data.strip():
            yield from pending
            pending = [lines]
        else:  # the end of the file, unless text follows
            pending.append(Lines(file, lines.first, b"\n" * lines.data.count(b"\n")))
    if pending and (data := _without_blank_end(pending[0].data)):
        yield Lines(file, pending[0].first, data)


def _whole_lines(stream: BinaryIO, file: str) -> Iterator[Lines]:
    first, rest = 1, b""
    while chunk := stream.read(BLOCK_BYTES):
        if first == 1 and not rest:
            chunk = without_mark(chunk, file)
        data = rest + chunk
        end = data.rfind(b"\n")
        rest = data[end + 1 :]
        if len(rest) > LINE_BYTES:
            raise UserError(
                f"{file}: the line from {first} on is longer than {LINE_BYTES >> 20} MiB, which is no sentence"
            )
        if end >= 0:
            lines = Lines(file, first, data[:end])
            first += data.count(b"\n", 0, end) + 1
            yield lines
    if rest:
        yield Lines(file, first, rest)


def single_lines(stream: BinaryIO, file: str) -> Iterator[bytes]:
    r"""Yield line after line, without `\n`; otherwise as `line_blocks`."""
    for block in line_blocks(stream, file):
        yield from block.data.split(b"\n")


def without_mark(beginning: bytes, file: str) -> bytes:
    """Return the beginning of a file without a byte-order mark.

    Raises:
        UserError: it begins as UTF-16 does.
    """
    if utf16_form(beginning[:4096]) is not None:
        raise UserError(f"{file} is UTF-16, not UTF-8: convert it first (iconv -f UTF-16 -t UTF-8)")
    return beginning.removeprefix(_BOM)


def utf16_form(head: bytes) -> str | None:
    """Return iconv's name of the UTF-16 in which a file begins, told by its mark or by NULs; None if it does not.

    Every other byte of a Latin letter is NUL, but of Chinese text only those of line ends and spaces are.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) < 4 or max(even, odd) * _BYTES_PER_NUL < len(head):
        return None
    # Line ends tell the order of bytes better than NULs do: a frequent Chinese character, U+4E00, has one too.
    little = head.decode("utf-16-le", "replace").count("\n"), odd
    big = head.decode("utf-16-be", "replace").count("\n"), even
    return "UTF-16LE" if little > big else "UTF-16BE"


def _without_blank_end(data: bytes) -> bytes:
    while data:
        end = data.rfind(b"\n")
        if data[end + 1 :].strip():
            break
        data = data[: max(end, 0)]
    return data
