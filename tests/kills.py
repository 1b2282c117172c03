"""What a function leaves that is killed before one of the changes that it makes to a directory, for each of them.

A kill leaves what is on the disk at that moment, without what a buffer holds. So the function runs once, and the
directory is copied before each change; to be killed at each of a hundred, it would have to run a hundred times.
test_kills.py really kills, and compares.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests import forked

_CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at_every_change(function: Callable[[Path], None], before: Path, work: Path) -> list[Path]:
    """Returns copies of the directory ``before``, as ``function`` would leave them if it were killed.

    The first as if it were killed before it changed anything, the second after one change, and so on; the last as if it
    were not. Copy N is ``work/N/run``. ``function`` must be picklable.
    """
    process = forked.start(_run, (function, before, work))
    process.join()
    assert process.exitcode == 0, "the function failed; its output is above"
    return [work / name / "run" for name in sorted(os.listdir(work), key=int)]


def before_each_change(directory: Path, act: Callable[[int], None]) -> None:
    """From now on calls act(N) in this process before it makes change N, from 0, to the directory or what is beside it.

    That is, to any path that begins with the directory's.
    """
    number = 0

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        if event not in _CHANGES or not str(arguments[0]).startswith(str(directory)):
            return
        if event == "open" and not int(str(arguments[2])) & _WRITING:
            return
        number += 1
        act(number - 1)

    sys.addaudithook(hear)


def _run(function: Callable[[Path], None], before: Path, work: Path) -> None:
    """In a process that has one thread, and imported what ``function`` needs to be unpickled."""
    directory = work / "now" / "run"
    directory.parent.mkdir(parents=True)
    if before.exists():
        shutil.copytree(before, directory)
    changes = 0

    def copy(number: int) -> None:
        nonlocal changes
        shutil.copytree(directory.parent, work / str(number))
        changes = number + 1

    before_each_change(directory, copy)
    function(directory)
    os.rename(directory.parent, work / str(changes))
    os._exit(0)
