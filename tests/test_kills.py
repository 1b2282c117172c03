"""The copies that stand for kills: are they what a process leaves that is really killed?"""

import os
from pathlib import Path

from tests import forked
from tests.kills import before_each_change, killed_at_every_change


def change_files(directory: Path) -> None:
    """Changes of all kinds, one of them while something is still in a buffer, and one to what is beside it."""
    (directory / "new").mkdir()
    with open(directory / "new" / "written", "w", encoding="utf-8") as file:
        file.write("first")
        file.flush()
        file.write("second")
        (directory / "old").unlink()
    os.truncate(directory / "new" / "written", 3)
    directory.rename(directory.with_name("run.1"))
    directory.mkdir()
    (directory / "empty").mkdir()
    (directory / "empty").rmdir()


def change_and_die(directory: Path, changes: int) -> None:
    before_each_change(directory, lambda number: os._exit(9) if number == changes else None)
    change_files(directory)


def contents(folder: Path) -> dict[str, bytes | None]:
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def test_copies_are_what_kills_leave(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "old").write_text("old", encoding="utf-8")
    copies = killed_at_every_change(change_files, before, tmp_path / "copies")
    assert len(copies) == 9
    for changes, copy in enumerate(copies):
        directory = tmp_path / str(changes) / "run"
        directory.mkdir(parents=True)
        (directory / "old").write_text("old", encoding="utf-8")
        process = forked.start(change_and_die, (directory, changes))
        process.join()
        assert process.exitcode == (9 if changes < 8 else 0)
        assert contents(copy.parent) == contents(directory.parent)
    assert contents(copies[3].parent)["run/new/written"] == b"firstsecond"
