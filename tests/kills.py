"""A function killed before each change that it makes to a directory, one after the other."""

import os
import shutil
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests import forked

_CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_KILLED = 99


def killed_at_every_change(function: Callable[[Path], None], before: Path, work: Path) -> list[Path]:
    """Returns copies of the directory ``before``, as processes that called ``function`` with them left them.

    The first was killed before it changed anything, the second after one change, and so on; the last was not killed.
    Copy N is ``work/N/run``. ``function`` must be picklable.
    """
    process = forked.start(_kill_all, (function, before, work))
    process.join()
    assert process.exitcode == 0, "a process failed before it was killed; its output is above"
    return [work / name / "run" for name in sorted(os.listdir(work), key=int)]


def _kill_all(function: Callable[[Path], None], before: Path, work: Path) -> None:
    """In a process that has one thread, and imported what ``function`` needs to be unpickled."""
    for changes in count():
        directory = work / str(changes) / "run"
        directory.parent.mkdir(parents=True)
        if before.exists():
            shutil.copytree(before, directory)
        child = os.fork()
        if child == 0:
            sys.addaudithook(_killer(directory, changes))
            function(directory)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != _KILLED:
            sys.exit(status)


def _killer(directory: Path, changes: int) -> Callable[[str, tuple[object, ...]], None]:
    left = changes

    def kill(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or not str(arguments[0]).startswith(str(directory)):
            return
        if event == "open" and not int(str(arguments[2])) & _WRITING:
            return
        if left == 0:
            os._exit(_KILLED)
        left -= 1

    return kill
