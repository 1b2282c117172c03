"""Files that commands write: what cannot be written is told before the work, and a reader that has gone ends it."""

import os
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.cli.outputs import READER_GONE, check_files, open_output, write_on_first
from dist_s2s.distributed import Ranks

ALONE = Ranks.alone()


def test_files_that_can_be_written(tmp_path: Path) -> None:
    read, written = tmp_path / "in.txt", tmp_path / "out.txt"
    read.write_text("text")
    check_files([written, None, tmp_path / "other.txt"], [read, None, tmp_path / "is no file"])
    check_files([Path(os.devnull), Path(os.devnull)], [Path(os.devnull)])
    written.write_text("text")
    check_files([written], [read])


def test_files_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, link, missing = (tmp_path / name for name in ("in.txt", "link", "none/out.txt"))
    read.write_text("text")
    link.symlink_to(read)
    for outputs, inputs, message in (
        ([missing], [], f"cannot write {missing}: there is no folder {missing.parent}; make it first"),
        ([tmp_path], [], f"cannot write {tmp_path}: it is a folder; name a file"),
        ([link], [read], f"{link} would be read and written; give another file"),
        ([read], [read], f"{read} would be read and written; give another file"),
        ([tmp_path / "new", tmp_path / "." / "new"], [], f"{tmp_path / 'new'} would be written twice; give another"),
    ):
        with pytest.raises(UserError) as error:
            check_files(outputs, inputs)
        assert str(error.value).startswith(message)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(UserError, match="permission denied"):
        check_files([tmp_path / "new"])
    check_files([read])


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    output = open(writer, "w")  # noqa: SIM115 (closed below)
    write_on_first(output, "a line\n", ALONE)
    assert os.read(reader, 100) == b"a line\n"
    os.close(reader)
    with pytest.raises(SystemExit) as end:
        write_on_first(output, "a line\n", ALONE)
    assert end.value.code == READER_GONE
    output.close()  # without a further error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full() -> None:
    with (
        open_output(Path("/dev/full"), ALONE) as output,
        pytest.raises(UserError, match=r"cannot write .*full: No"),
    ):
        write_on_first(output, "a line\n", ALONE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full_behind_a_redirection(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as redirected:
        monkeypatch.setattr("sys.stdout", redirected)
        with open_output(None, ALONE) as output, pytest.raises(UserError, match="cannot write stdout: No space"):
            write_on_first(output, "a line\n", ALONE)


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with open_output(tmp_path / "out.txt", Ranks(1, 2, ALONE.device, None)) as output:
        output.write("a line\n")
    assert not (tmp_path / "out.txt").exists()
