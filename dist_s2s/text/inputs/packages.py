"""Debian packages: `.deb` files, or single files of unpacked ones."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.text.inputs.packed import decompressed, readable

_AR_MAGIC = b"!<arch>\n"


def member_names(path: Path) -> Iterator[str]:
    """Yield the names of a package's files.

    Raises:
        UserError: it is damaged, or one of them leaves its folder.
    """
    if path.suffix != ".deb":
        yield path.as_posix()
        return
    with _package(path) as archive:
        for member in archive:
            if ".." in member.name.split("/"):
                raise UserError(
                    f"{path} has a member that leaves its folder, {member.name!r}: do not trust the package"
                )
            if member.isfile():
                yield member.name


def members(path: Path, is_wanted: Callable[[str], bool], limit: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files of a package that are wanted, in its order; nothing is unpacked to the disk.

    Args:
        path: the package.
        is_wanted: tells it of a name.
        limit: bytes; of what is longer there is one byte more, so that it can be told.

    Raises:
        UserError: it is damaged.
    """
    if path.suffix != ".deb":
        with readable(str(path)), open(path, "rb") as file:
            yield path.as_posix(), file.read(limit + 1)
        return
    with _package(path) as archive:
        for member in archive:
            opened = archive.extractfile(member) if member.isfile() and is_wanted(member.name) else None
            if opened is not None:
                yield member.name, opened.read(limit + 1)


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
