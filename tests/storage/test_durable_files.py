"""Files that are replaced whole, or not at all."""

import errno
import os
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.storage.durable_files import whole_file, write_durably, write_output


def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_durably(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/summary\.json'$"):
        write_durably(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("summary.json", "old")]


def test_an_output_is_whole_or_not_there(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    write_output(output, b"old")

    def fail_in_the_midst() -> None:
        with whole_file(output) as place:
            place.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_midst()
    assert (output.read_bytes(), os.listdir(tmp_path)) == (b"old", ["page.html"])
    with pytest.raises(UserError, match=r"nowhere/page.html cannot be written: No such file or directory"):
        write_output(tmp_path / "nowhere" / "page.html", b"")
    with pytest.raises(UserError, match=r"cannot be written: Is a directory"):
        write_output(tmp_path, b"")


def test_an_output_that_is_no_file_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    write_output(tmp_path / "pipe", b"page")
    assert os.read(reader, 100) == b"page"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_output(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
