"""Files that are on the disk when the call returns, and are read only if their SHA-256 is right."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dist_s2s import UserError

_CHECKSUM = "sha256_of_the_rest"
_PARTIAL = ".partial"


def check_sha256(path: Path, expected: str | None) -> None:
    """Raise UserError if the file is missing or is not the one that was written."""
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path.parent} lacks its file {path.name}") from None
    if actual != expected:
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in the manifest")


def write_checked_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that holds a checksum of itself."""
    write_durably(path, json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1) + "\n")


def read_checked_json(path: Path) -> dict[str, Any]:
    """Return the content of a file that ``write_checked_json`` wrote.

    A file of format 1 may lack the checksum: it is from before there were any.

    Raises:
        UserError: if it is damaged.
        OSError: if it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    found = content.pop(_CHECKSUM, None)
    if found != _checksum(content) and not (found is None and content.get("format") == 1):
        raise UserError(f"{path} is damaged: its SHA-256 is not the one that it names")
    return content


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, content: str | bytes) -> None:
    """Replace a file: at any moment, also after a power cut, it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)
    sync_directory(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name into an OSError that has none, as when the disk is full once the file is open."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def check_new(output: Path) -> None:
    """Raise UserError if something is in the place of what a user wants to be written."""
    if output.exists():
        raise UserError(f"{output} exists; give another --output")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn an OSError of writing a file or folder that a user has named into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place to write the file that a user has named, which appears under its name whole or not at all.

    What is there and is no file, such as a device or a pipe, is written to as it is; a link's target is replaced.

    Raises:
        UserError: it cannot be written.
    """
    with writable(path):
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))
        partial = target.with_name(f".{target.name}{_PARTIAL}")
        try:
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that a user has named; see ``whole_file``."""
    with whole_file(path) as place:
        place.write_bytes(content)


def is_partial(path: Path) -> bool:
    """Tell whether a file is what ``write_durably`` leaves if it is killed."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def sync_directory(path: Path) -> None:
    """Make renames within the directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content as it is read back, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()
