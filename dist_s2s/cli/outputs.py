"""What the commands write: files that a user has named, and stdout."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from dist_s2s import UserError
from dist_s2s.training.patient_output import lose

if TYPE_CHECKING:
    from dist_s2s.distributed import Ranks

READER_GONE = 128 + signal.SIGPIPE  # the exit status of who writes to a pipe that nobody reads any more


class StdoutError(OSError):
    """Stdout cannot be written to."""


class _NamedStdout:
    """Stdout, whose errors say that they are its own; but for that of a reader that has gone, which is not an error.

    The rest is as of the stream within.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write."""
        with _naming_stdout():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what has been buffered."""
        with _naming_stdout():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _naming_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(error.errno, error.strerror) from error


def open_standard_streams() -> None:
    """Open the standard streams that were closed (`>&-`), so that no file is given their numbers; name stdout's errors.

    Python has None for such a stream. A closed stdout becomes one that refuses all writes, as a closed one does; what a
    closed stderr would show is lost.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)
    if not isinstance(sys.stdout, _NamedStdout):
        sys.stdout = cast(TextIO, _NamedStdout(sys.stdout))


def check_folder(path: Path) -> None:
    """Raise UserError if there is no folder for a file that is to be written: before the work, not after."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it first")


def check_files(outputs: Sequence[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Raise UserError, before the work, for a file that cannot be written, or that two options name.

    Args:
        outputs: what is to be written.
        inputs: what is to be read; some may be no files.
    """
    named = [path for path in outputs if path is not None]
    for path in named:
        check_folder(path)
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; name a file")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UserError(f"cannot write {path}: permission denied")
    clashes = [(path, other, "written twice") for path, other in combinations(named, 2)]
    clashes += [(path, other, "read and written") for other in inputs if other is not None for path in named]
    for path, other, what in clashes:
        if os.path.realpath(path) == os.path.realpath(other) and (path.is_file() or not path.exists()):
            raise UserError(f"{path} would be {what}; give another file")


def open_output(path: Path | None, ranks: "Ranks") -> TextIO:
    """Return the file, open for writing, or a second handle of stdout, on the first rank; the caller closes either.

    Calls no collectives. What other ranks write is lost.
    """
    if not ranks.is_first:
        path = Path(os.devnull)
    elif path is None and _is_closed(sys.stdout):
        raise UserError("there is no stdout; give --output FILE")
    return open(
        sys.stdout.fileno() if path is None else path, "w", encoding="utf-8", newline="\n", closefd=path is not None
    )


def _is_closed(stream: TextIO) -> bool:
    """Tell whether a standard stream is what ``open_standard_streams`` has put in the place of a closed one."""
    import fcntl  # not on every platform

    return fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def write_on_first(output: TextIO, text: str, ranks: "Ranks") -> None:
    """Write at once, on the first rank (collective).

    Raises:
        UserError: on every rank, if it cannot be written.
        SystemExit: on every rank, with ``READER_GONE``, if it is a pipe that nobody reads any more.
    """

    def write() -> bool:
        try:
            output.write(text)
            output.flush()
        except OSError as error:
            lose(output)  # or else closing it would fail again
            if isinstance(error, BrokenPipeError):
                return False
            name = output.name if isinstance(output.name, str) else "stdout"  # of a descriptor: its number
            raise UserError(f"cannot write {name}: {error.strerror}") from None
        return True

    if not ranks.on_first(write):
        raise SystemExit(READER_GONE)


def write_json(values: object, path: Path) -> None:
    """Write values to a file; UserError if it cannot be written."""
    try:
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
