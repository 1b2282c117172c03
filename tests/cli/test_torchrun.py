"""cli/torchrun, and plain torchrun, around workers that succeed, err, crash and are interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dist_s2s.storage.checkpoint import list_checkpoints
from tests.commands import ROOT, clean_environment
from tests.toy_corpus import options, write_corpus

QUIET = ("-m", "dist_s2s.cli.torchrun")
PLAIN = ("-m", "torch.distributed.run")
SECONDS = 60


class Launched:
    """torchrun with two workers. Its own output goes to files, so that a worker left behind cannot hold it open."""

    def __init__(self, folder: Path, launcher: tuple[str, ...], *worker: object) -> None:
        self._files = [folder / "stdout", folder / "stderr"]
        with open(self._files[0], "wb") as stdout, open(self._files[1], "wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, "--standalone", "--nproc_per_node=2", *map(str, worker)],
                cwd=ROOT,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    def wait_for(self, *paths: Path) -> None:
        """Waits until all files are there and have content."""
        deadline = time.monotonic() + SECONDS
        while not all(path.exists() and path.stat().st_size for path in paths):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def wait(self) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        try:
            return self.process.wait(SECONDS), *self.output()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running\n{self.output()}") from None

    def output(self) -> tuple[str, str]:
        stdout, stderr = (file.read_text(encoding="utf-8") for file in self._files)
        return stdout, stderr


Launch = Callable[..., Launched]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts torchrun; what still runs after the test is ended."""
    started: list[Launched] = []

    def start(launcher: tuple[str, ...], *worker: object) -> Launched:
        started.append(Launched(tmp_path, launcher, *worker))
        return started[-1]

    yield start
    for launched in started:
        if launched.process.poll() is None:
            launched.process.terminate()
            launched.process.wait()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """A worker without torch, which starts at once. It sees `rank` and `folder`."""

    def write(text: str) -> Path:
        head = "import os, signal, sys, time, pathlib\nrank, folder = os.environ['RANK'], pathlib.Path(sys.argv[1])\n"
        (tmp_path / "worker.py").write_text(head + text, encoding="utf-8")
        return tmp_path / "worker.py"

    return write


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_success_and_the_workers_arguments(launch: Launch, script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script("(folder / rank).write_text(' '.join(sys.argv[2:]))")
    assert launch(QUIET, worker, tmp_path, "--data.train", "a b").wait() == (0, "", "")
    assert [(tmp_path / rank).read_text(encoding="utf-8") for rank in "01"] == ["--data.train a b"] * 2


@pytest.mark.parametrize("launcher", [QUIET, PLAIN], ids=["dist_s2s.cli.torchrun", "torchrun"])
def test_user_error_of_the_real_command(launch: Launch, launcher: tuple[str, ...], tmp_path: Path) -> None:
    arguments = options(tmp_path / "missing.tsv", tmp_path / "run")
    status, stdout, stderr = launch(launcher, "-m", "dist_s2s.train", *arguments).wait()
    said = sorted(line for line in stderr.splitlines() if ": error: " in line)
    message = f"error: {tmp_path / 'missing.tsv'} does not exist"
    assert [line.startswith(f"rank {rank}: {message}") for rank, line in enumerate(said)] == [True, True], stderr
    assert stdout == ""
    if launcher == QUIET:
        assert status == 2
        assert sorted(stderr.splitlines()) == said
    else:
        assert status not in (0, None)
        assert f'File "{ROOT / "dist_s2s"}' not in stderr  # torchrun's own traceback is none of ours


def test_crash_is_reported(launch: Launch, script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script("if rank == '1': raise RuntimeError('boom')\ntime.sleep(600)")
    status, _, stderr = launch(QUIET, worker, tmp_path).wait()
    assert status == 1
    assert "RuntimeError: boom" in stderr
    assert "rank      : 1" in stderr
    assert "exitcode  : 1" in stderr


def test_worker_that_is_killed(launch: Launch, script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script("if rank == '1': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)")
    status, _, stderr = launch(QUIET, worker, tmp_path).wait()
    assert status == 128 + signal.SIGKILL
    assert "rank      : 1" in stderr
    assert "exitcode  : -9" in stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_launcher_leaves_no_worker(
    stop: signal.Signals, launch: Launch, script: Callable[[str], Path], tmp_path: Path
) -> None:
    worker = script("(folder / rank).write_text(str(os.getpid()))\ntime.sleep(600)")
    launched = launch(QUIET, worker, tmp_path)
    launched.wait_for(tmp_path / "0", tmp_path / "1")
    pids = [int((tmp_path / rank).read_text(encoding="utf-8")) for rank in "01"]
    assert all(map(is_alive, pids))
    launched.process.send_signal(stop)
    status, _, stderr = launched.wait()
    assert status == 128 + stop
    assert "Traceback" not in stderr
    assert not any(map(is_alive, pids))


def test_interrupted_training_is_saved(launch: Launch, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = options(write_corpus(tmp_path), run_dir, training__max_steps=1_000_000)
    launched = launch(QUIET, "-m", "dist_s2s.train", *arguments)
    launched.wait_for(run_dir / "metrics.jsonl")
    launched.process.send_signal(signal.SIGINT)
    status, stdout, stderr = launched.wait()
    assert status == 128 + signal.SIGINT
    assert "and saved; the same command goes on from here" in stdout
    assert "Traceback" not in stderr
    assert len(list_checkpoints(run_dir / "checkpoints")) == 1
