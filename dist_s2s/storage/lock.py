"""One training at a time in a run directory: an operating-system lock, which is given back however its holder ends."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import psutil

from dist_s2s import UserError

LOCK = ".lock"


class RunLock:
    """The lock of a run directory, held by one process: the first rank. Reading commands do not ask for it.

    Args:
        run_dir: the directory.
        option: what names it on the command line.

    A context manager. Entering makes the directory if it does not exist; leaving removes it again if it is still empty.

    Raises:
        UserError: if another process holds the lock; it is named.
    """

    def __init__(self, run_dir: Path, option: str = "--run_dir") -> None:
        self._run_dir, self._option = run_dir, option
        self._descriptor = -1

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *exception: object) -> None:
        directory = self._run_dir
        if self._descriptor >= 0:
            with suppress(OSError):
                if set(os.listdir(directory)) == {LOCK}:
                    os.unlink(directory / LOCK)  # while it is held: who waits for it finds that it is gone
                    os.rmdir(directory)
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self) -> None:
        """Lock the directory that has the run directory's name now; give up the lock of one that was moved aside."""
        import fcntl  # not on every platform

        while True:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            path = self._run_dir / LOCK
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 4096, 0)
                os.close(descriptor)
                raise UserError(f"{self._run_dir} is in use{_described(holder)}; give another {self._option}") from None
            with suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                    break
            os.close(descriptor)  # its holder has removed it meanwhile
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        now = datetime.now().astimezone().isoformat(" ", "seconds")  # with the zone: a reader may be in another
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)


@dataclass(frozen=True)
class Holder:
    """Who took the lock of a run directory last.

    Attributes:
        since: when, in seconds, as ``time.time`` counts them.
        is_alive: whether the process still runs; None if it is on another host.
    """

    host: str
    since: float
    is_alive: bool | None


def holder_of(run_dir: Path) -> Holder | None:
    """Return who took the lock last, from what the file says; the lock itself is not touched. None if nobody has."""
    try:
        who = json.loads((run_dir / LOCK).read_bytes())
        since = datetime.fromisoformat(who["since"]).timestamp()
        here = who["host"] == socket.gethostname()
        return Holder(who["host"], since, _is_alive(who["pid"], since) if here else None)
    except (OSError, ValueError, KeyError, TypeError):  # no file, or nothing in it yet
        return None


def _is_alive(pid: int, since: float) -> bool:
    """Tell whether a process runs that began before ``since``: later ones have got the number of one that is gone."""
    try:
        began: float = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return began < since + 1  # which has no fractions


def _described(holder: bytes) -> str:
    """Return who has written this into the lock's file; nothing if that is not there yet."""
    with suppress(ValueError, KeyError, TypeError):
        who = json.loads(holder)
        return f" by pid {who['pid']} on {who['host']} since {who['since']}"
    return " by another process"
