"""What a sentence may be, and reading a UTF-8 text file line by line, with errors that say where the trouble is."""

import os
import unicodedata
from pathlib import Path

from dist_s2s import UserError

_BOM = "\ufeff"


def visible_text(line: str) -> str:
    """Return a line without byte order marks before it; "" if all the rest is spaces, controls and zero-width."""
    text = line.lstrip(_BOM)
    return text if any(not each.isspace() and unicodedata.category(each) not in ("Cc", "Cf") for each in text) else ""


def fault_of_sentence(text: str) -> str | None:
    """Return what a text has that no sentence may have, as the end of an error "sentence 1 ..."; None if it is one."""
    if "\n" in text or "\r" in text:
        return "has a line break; give each line as a sentence of its own"
    if "\0" in text:
        return "has a NUL character, as no text has"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "has half of a surrogate pair, which stands for no character; is it UTF-8?"
    return None


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    r"""Return the lines of a UTF-8 file without their line ends; item `i` is line `i + 1` of the file.

    Lines end at `\n` alone (or `\r\n`): other Unicode line breaks may be part of a sentence.
    A byte-order mark and blank lines at the very end of the file are dropped.

    Raises:
        UserError: the file is missing, a directory, unreadable, without any text, or not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path, which is relative to {Path.cwd()}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory: name a file in it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    lines = [line.removesuffix("\r") for line in _decode(path, data).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty: it has {len(data)} bytes and no text")
    return lines


def _decode(path: str | os.PathLike[str], data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise UserError(
            f"{path} line {line} is not UTF-8: byte {column} of the line is 0x{data[error.start]:02x} "
            f"({error.reason}); convert the file to UTF-8"
        ) from None
