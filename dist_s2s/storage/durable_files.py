"""Files that are on the disk when the call returns, and are read only if their SHA-256 is right."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dist_s2s import UserError


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes a safetensors file through to the disk; returns its SHA-256. Raises UserError if it cannot be written."""
    try:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
    except SafetensorError as error:
        raise UserError(f"cannot write {path}: {error}") from None
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str | None) -> None:
    """Raises UserError if the file is missing or is not the one that was written."""
    try:
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"checkpoint {path.parent} lacks its file {path.name}") from None
    if actual != expected:
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in the manifest")


def write_durably(path: Path, text: str) -> None:
    """Replaces a file: at any moment, also after a power cut, it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes renames within the directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
