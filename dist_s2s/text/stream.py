"""A file or named pipe of sentence pairs that is read while it may still be written."""

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from dist_s2s import UserError
from dist_s2s.text.inputs.block import Pair
from dist_s2s.text.inputs.delimited import TWO_COLUMNS, TsvBlock
from dist_s2s.text.inputs.lines import Lines, without_mark

_BYTES = 1 << 20  # of a read
_LONGEST_LINE = 1 << 20  # bytes
_SECONDS_BETWEEN_LOOKS = 0.05


class StreamReader:
    """Gives lines in order, each once.

    A file has ended when nothing has been added to it for `wait` seconds, a named pipe when it had a writer, and has
    had none for as long. A line without an end counts as one only then.

    Args:
        path: a file or named pipe.
        start: bytes to leave out at the beginning, as a run does that goes on. A file is positioned there, a pipe read
            to there: whoever feeds it must begin anew.
        wait: seconds.

    Raises:
        UserError: the path cannot be opened, or is neither.
    """

    def __init__(self, path: str | os.PathLike[str], start: int, wait: float) -> None:
        self._path, self._wait = Path(path), wait
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe, without waiting for a writer
        except OSError as error:
            raise UserError(f"the stream {path} cannot be read: {error.strerror}") from None
        mode = os.fstat(self._file).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            self.close()
            raise UserError(f"the stream {path} is neither a file nor a named pipe")
        self._had_writer = stat.S_ISREG(mode)  # which has one whenever somebody opens it
        self._to_leave_out = 0 if stat.S_ISREG(mode) else start
        if stat.S_ISREG(mode):
            if os.fstat(self._file).st_size < start:
                raise UserError(f"the stream {path} is shorter than the {start:,} bytes that have been trained on")
            os.lseek(self._file, start, os.SEEK_SET)
        self._lines: list[bytes] = []
        self._rest = b""  # of a line whose end is yet to come
        self._quiet_since: float | None = None  # that there was nothing more, and no writer of a pipe
        self.has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def has(self, number: int, seconds: float) -> bool:
        """Read until there are so many lines or the stream has ended, but no longer than some seconds; tell whether."""
        deadline = time.monotonic() + seconds
        while len(self._lines) < number and not self.has_ended:
            if not self._read() and not self._note_the_end():
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        return True

    def take(self, number: int) -> list[bytes]:
        """Return the next lines, with their ends: as many as there are, at most ``number``."""
        taken, self._lines = self._lines[:number], self._lines[number:]
        return taken

    def _read(self) -> bool:
        """Read what there is now; tell whether that was anything."""
        data = b""
        try:
            data = os.read(self._file, _BYTES)
            is_quiet = not data and self._had_writer
        except BlockingIOError:  # a pipe whose writer has nothing to say now
            is_quiet = False
            self._had_writer = True
        if not is_quiet:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = time.monotonic()
        if data:
            self._had_writer = True
            self._keep(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        """Cut what was read into lines, and the rest of one that has no end yet."""
        left_out = min(self._to_leave_out, len(data))
        self._to_leave_out -= left_out
        *lines, self._rest = (self._rest + data[left_out:]).split(b"\n")
        self._lines += [line + b"\n" for line in lines]
        if len(self._rest) > _LONGEST_LINE:
            raise UserError(f"the stream {self._path} has a line of more than {_LONGEST_LINE:,} bytes")

    def _note_the_end(self) -> bool:
        if self._quiet_since is not None and time.monotonic() - self._quiet_since >= self._wait:
            self.has_ended = True
            self._lines += [self._rest] if self._rest else []
            self._rest = b""
        return self.has_ended


def parse_pairs(lines: Sequence[bytes], path: str, first: int) -> list[Pair]:
    """Return the two sides of each line of a stream, as of a tab-separated file of two columns.

    Args:
        lines: with their ends.
        path: of the stream, for errors.
        first: the number of the first line.

    Raises:
        UserError: a line is no pair, or the stream is UTF-16.
    """
    if not lines:
        return []
    data = b"".join(lines).removesuffix(b"\n")
    block = TsvBlock(Lines(path, first, without_mark(data, path) if first == 1 else data), TWO_COLUMNS)
    parsed = block.parse()
    if parsed.bad:
        raise UserError(str(parsed.bad[0]))
    return parsed.pairs
