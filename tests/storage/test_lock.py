"""One training at a time in a run directory; the lock goes with its holder, however that ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.storage.lock import LOCK, RunLock

HOLDER = """
import sys, time
from pathlib import Path
from dist_s2s.storage.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(run_dir: Path) -> subprocess.Popen[str]:
    """Return a process that holds the lock."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, run_dir], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "one"
    with hold_elsewhere(run_dir) as holder:
        with pytest.raises(UserError) as error, RunLock(run_dir):
            pass
        assert str(error.value).startswith(
            f"{run_dir} is in use by pid {holder.pid} on {socket.gethostname()} since 20"
        )
        assert str(error.value).endswith("; give another --run_dir")
        holder.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_is_given_back_when_its_holder_dies(tmp_path: Path, number: int) -> None:
    with hold_elsewhere(tmp_path) as holder:
        os.kill(holder.pid, number)
        holder.wait()
        with RunLock(tmp_path):
            assert (tmp_path / LOCK).exists()


def test_an_empty_directory_goes_with_its_lock_and_one_with_files_stays(tmp_path: Path) -> None:
    with RunLock(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()
    with RunLock(tmp_path / "used"):
        (tmp_path / "used" / "config.yaml").touch()
    assert (tmp_path / "used").is_dir()
    with RunLock(tmp_path / "used"):  # what is left of the lock is nobody's
        pass


def test_after_the_directory_was_moved_aside_the_new_one_is_locked(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with RunLock(run_dir) as lock:
        (run_dir / "config.yaml").touch()
        run_dir.rename(tmp_path / "run.1")
        lock.take()
        with pytest.raises(UserError, match="in use"), RunLock(run_dir):
            pass
        with RunLock(tmp_path / "run.1"):  # the old one is free
            pass


def test_a_lock_without_a_name_in_it_is_respected(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / LOCK).write_text("")
        with pytest.raises(UserError, match="in use by another process"), RunLock(tmp_path):
            pass
