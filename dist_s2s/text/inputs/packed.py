"""Files as they lie on the disk: plain, compressed, or in a zip archive. Their content is told by its first bytes."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from dist_s2s import UserError
from dist_s2s.text.extras import extra

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh91AY&SY": "bzip2",
}
_OPENERS = {"xz": lzma.LZMAFile, "bzip2": bz2.BZ2File}
ZIP_MAGIC = b"PK\x03\x04"
_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
_BUFFER_BYTES = 1 << 20  # word vectors, read line by line, take a fifth longer with the 8 KiB of Python
MEMBER_BYTES = 1 << 38  # 256 GiB; no member of an archive may be larger
MEMBER_RATIO = 400  # nor expand more than this, beyond a megabyte: text does not


@dataclass(frozen=True)
class PackedFile:
    """A file, or a member of a zip archive, as a user names it.

    Attributes:
        path: the file on the disk.
        member: its member that is meant, if it is an archive.
    """

    path: Path
    member: str | None = None

    @classmethod
    def find(cls, text: str) -> "PackedFile":
        """Return the file of a path, which may lead into an archive: `archive.zip/member`.

        The member of an archive need not be named if there is only one, apart from those that begin with `_` or
        `.` or are called readme or licence.

        Raises:
            UserError: there is no such file or member, it is a directory, or the archive is not to be trusted.
        """
        path = Path(text)
        if not os.path.exists(path):
            archive = next(
                (parent for parent in path.parents if os.path.isfile(parent) and _begins(parent, ZIP_MAGIC)), None
            )
            if archive is None:
                raise UserError(f"{text} does not exist: check the path, which is relative to {Path.cwd()}")
            return cls(archive, _member(archive, path.relative_to(archive).as_posix()))
        if path.is_dir():
            raise UserError(f"{text} is a directory: name a file in it")
        check_regular(path)
        return cls(path, _member(path, None) if _begins(path, ZIP_MAGIC) else None)

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def inner_name(self) -> str:
        """The name of what is packed, in small letters: `a.tsv` of `A.tsv.gz`."""
        name = PurePosixPath(self.member or self.path.name).name.lower()
        return name.rpartition(".")[0] if name.endswith(_SUFFIXES) else name

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Open the content, decompressed; a fault of the file within becomes a UserError that names it."""
        with readable(str(self)), self._open() as stream:
            yield stream

    def begin(self, size: int) -> bytes:
        """Return the first bytes of the content."""
        with self.reading() as stream:
            return stream.read(size)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.member is None:
            with open(self.path, "rb", _BUFFER_BYTES) as file:
                yield decompressed(cast(io.BufferedReader, file))
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield decompressed(io.BufferedReader(cast(io.RawIOBase, member), _BUFFER_BYTES))


def check_regular(path: Path) -> None:
    """Raise UserError for a pipe and the like, which would wait for a second writer: files are read more than once."""
    if os.path.exists(path) and not path.is_file():
        raise UserError(f"{path} is no ordinary file, and is read more than once: write what comes from it to a file")


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what is raised within, if a file cannot be read or is damaged, into a UserError that names it."""
    errors = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)
    try:
        yield
    except errors as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{name} cannot be read: {reason or 'it is damaged'}") from None


def compression(head: bytes) -> str | None:
    """Return the program that has compressed a file which begins so: gzip, xz, zstd or bzip2; None for others."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def decompressed(file: io.BufferedReader) -> BinaryIO:
    """Return the content of an open file, whatever it is compressed with; it reads as much as it is asked for."""
    kind = compression(file.peek(16)[:16])
    if kind is None:
        return file
    if kind == "zstd":
        return _zstd(file)
    opened: object = gzip.GzipFile(fileobj=file) if kind == "gzip" else _OPENERS[kind](file)
    return io.BufferedReader(cast(io.RawIOBase, opened), _BUFFER_BYTES)


def _zstd(file: io.BufferedReader) -> BinaryIO:
    return io.BufferedReader(_ZstdFrames(file), _BUFFER_BYTES)


class _ZstdFrames(io.RawIOBase):
    """The content of a zstd file, frame after frame; one that is cut off is an error, as with the other forms."""

    _INPUT = 4096  # bytes at a time; they expand to 128 MiB at most

    def __init__(self, file: BinaryIO) -> None:
        self._zstd = extra("zstandard", "zstd", "a file that is compressed with zstd")
        self._file, self._input, self._output = file, b"", b""
        self._frame = self._zstd.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        """Tell that it is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a part of the buffer; return its length."""
        while not self._output:
            self._input = self._input or self._file.read(self._INPUT)
            if not self._input:
                if not self._frame.eof:
                    raise EOFError("it is cut off")
                return 0
            if self._frame.eof:
                self._frame = self._zstd.ZstdDecompressor().decompressobj()
            try:
                self._output = self._frame.decompress(self._input)
            except self._zstd.ZstdError as error:
                raise EOFError(str(error)) from None
            self._input = self._frame.unused_data
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size


def _member(archive: Path, name: str | None) -> str:
    """Return the name of the member that is meant, once the archive is found to be harmless."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is a damaged zip archive: {error}") from None
    for info in members:
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts[:1] and parts.parts[0].endswith(":")):
            raise UserError(
                f"{archive} has a member that leaves its folder, {info.filename!r}: do not trust the archive"
            )
    if name is None:
        chosen = [info for info in members if not _is_aside(info.filename)]
        if len(chosen) != 1:
            names = ", ".join(info.filename for info in members[:8]) or "none"
            raise UserError(f"{archive}: which of its {len(members)} members ({names})? Write {archive}/MEMBER")
    else:
        chosen = [info for info in members if info.filename == name]
        if not chosen:
            names = ", ".join(info.filename for info in members[:8]) or "none"
            raise UserError(f"{archive} has no member {name}; its members are {names}")
    _check_member(archive, chosen[0])
    return chosen[0].filename


def _check_member(archive: Path, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise UserError(f"{archive}/{info.filename} is encrypted: unpack it first")
    too_large = info.file_size > MEMBER_BYTES
    bomb = info.file_size > MEMBER_RATIO * max(info.compress_size, 1) and info.file_size > 1 << 20
    if too_large or bomb:
        raise UserError(
            f"{archive}/{info.filename} would expand from {info.compress_size:,} to {info.file_size:,} bytes, "
            "which is no text: unpack it first if you trust it"
        )


def _is_aside(name: str) -> bool:
    """Tell whether a member is not data, but about it: Anki's `_about.txt`, a readme, what macOS adds."""
    path = PurePosixPath(name)
    stem = path.name.lower()
    return stem.startswith(("_", ".", "readme", "license", "licence")) or path.parts[:1] == ("__MACOSX",)


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
