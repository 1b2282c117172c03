"""A folder of Debian packages: `.deb` files, or what `dpkg-deb -x` has made of them, with gettext's catalogs."""

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, PairsBlock, Parsed, add_pair
from dist_s2s.text.inputs.catalogs import read_mo
from dist_s2s.text.inputs.packed import decompressed, readable

_CATALOG = re.compile(r"/locale/([^/]+)/LC_MESSAGES/[^/]+\.mo$")
_CATALOG_BYTES = 1 << 28
_BLOCK_MESSAGES = 10_000
_AR_MAGIC = b"!<arch>\n"
# `文件(_F)`, `文件(&F)...`; `_File`, `E&xit`, `~Edit`; tags.
_KEY_IN_BRACKETS = re.compile(r"\s*\([_&~]\w\)")
_KEY_MARK = re.compile(r"(?<!\w)[_~](?=\w)|&(?=\w)(?!\w+;)")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


@dataclass(frozen=True)
class DebianInput:
    """The catalogs of one language in a folder of packages. Messages of programs are English."""

    folder: Path
    packages: tuple[Path, ...]
    language: str
    is_reversed: bool
    decided: str

    @property
    def paths(self) -> list[Path]:
        """What is read from the disk."""
        return list(self.packages)

    @property
    def description(self) -> str:
        """What was recognised, and by what."""
        sides = (self.language, "en") if self.is_reversed else ("en", self.language)
        return f"{self.folder}: Debian packages' catalogs, from {sides[0]} to {sides[1]}, {self.decided}"

    def blocks(self) -> Iterator[PairsBlock]:
        """Yield the translated messages, without tags and the marks of shortcut keys.

        Raises:
            UserError: a package or a catalog is damaged.
        """
        for path in self.packages:
            for name, stream in _catalogs(path):
                if _language(name) != self.language:
                    continue
                messages = read_mo(stream, f"{path}/{name}" if path.suffix == ".deb" else str(path))
                while batch := list(islice(messages, _BLOCK_MESSAGES)):
                    yield PairsBlock(self._parse(str(path), batch))

    def _parse(self, file: str, messages: list[tuple[str, str, str | BadLine]]) -> Parsed:
        parsed = Parsed()
        for place, message, translation in messages:
            if isinstance(translation, BadLine):
                parsed.bad.append(translation)
                continue
            sides = (plain(message), plain(translation))
            if all(sides):  # what was nothing but markup is no fault of the file
                add_pair(parsed, file, place, *(sides[::-1] if self.is_reversed else sides))
        return parsed


def debian_input(folder: Path, columns: str | None) -> DebianInput:
    """Return the reader of a folder of packages.

    Args:
        folder: with `.deb` files or catalogs somewhere below.
        columns: `en,zh_CN` or `zh_CN,en`; None: from English to the only language that there is.

    Raises:
        UserError: there are no packages, or it cannot be told which language is meant.
    """
    packages = tuple(sorted(path for path in folder.rglob("*") if path.suffix == ".deb" or _language(path.as_posix())))
    if not packages:
        raise UserError(f"{folder} is a directory without Debian packages or catalogs in it: name a file in it")
    there = sorted({_language(name) for path in packages for name in _names(path)} - {""})
    if columns is None:
        if len(there) != 1:
            raise UserError(
                f"{folder}: which of its languages ({', '.join(there) or 'none'})? Say it: --columns en,zh_CN"
            )
        return DebianInput(folder, packages, there[0], False, "the only one that there is")
    source, _, target = (name.strip() for name in columns.partition(","))
    language = target if source == "en" else source
    if "en" not in (source, target) or language not in there:
        raise UserError(
            f"--columns of {folder} are en and one of {', '.join(there) or 'no language'}, but are {columns!r}"
        )
    return DebianInput(folder, packages, language, source != "en", "as given")


def plain(text: str) -> str:
    """Return a message without tags, without the marks of shortcut keys, and on one line."""
    return " ".join(_KEY_MARK.sub("", _KEY_IN_BRACKETS.sub("", _TAG.sub("", text))).split())


def _language(name: str) -> str:
    """Return the language of a catalog's path; empty if it is none."""
    found = _CATALOG.search(f"/{name}")
    return found[1] if found else ""


def _names(path: Path) -> Iterator[str]:
    if path.suffix != ".deb":
        yield path.as_posix()
        return
    with _package(path) as archive:
        yield from (member.name for member in archive if member.isfile())


def _catalogs(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the name and content of each catalog of a package, in its order; nothing is unpacked to the disk."""
    if path.suffix != ".deb":
        with readable(str(path)), open(path, "rb") as file:
            yield path.as_posix(), io.BytesIO(file.read(_CATALOG_BYTES + 1))
        return
    with _package(path) as archive:
        for member in archive:
            opened = archive.extractfile(member) if member.isfile() and _language(member.name) else None
            if opened is not None:
                yield member.name, io.BytesIO(opened.read(_CATALOG_BYTES + 1))


@contextmanager
def _package(path: Path) -> Iterator[tarfile.TarFile]:
    """Open what a package would install, a tar archive within an ar archive (deb(5)), from front to back."""
    with readable(str(path)), open(path, "rb") as file:
        if file.read(8) != _AR_MAGIC:
            raise UserError(f"{path} is no Debian package")
        while header := file.read(60):
            name, size = header[:16].split(b"/")[0].strip(), header[48:58].strip()
            if not size.isdigit():
                raise UserError(f"{path} is a damaged Debian package")
            if name.startswith(b"data.tar"):
                with tarfile.open(fileobj=decompressed(file), mode="r|") as archive:
                    yield archive
                return
            file.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise UserError(f"{path} is a damaged Debian package: it has no data")
