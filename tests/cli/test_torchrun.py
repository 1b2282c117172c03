"""cli/torchrun, and plain torchrun, around workers that succeed, err, crash and are interrupted."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_s2s.storage.checkpoint import list_checkpoints
from tests.commands import ROOT, Command
from tests.toy_corpus import options, write_corpus

QUIET, PLAIN = "dist_s2s.cli.torchrun", "torch.distributed.run"


def launch(launcher: str, *worker: object) -> Command:
    """Start torchrun with two workers."""
    return Command(launcher, "--standalone", "--nproc_per_node=2", *worker)


def wait_for(launched: Command, *paths: Path) -> None:
    """Wait until all files are there and have content."""
    launched.wait_until(lambda: all(path.exists() and path.stat().st_size for path in paths))


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


def test_success_and_the_workers_arguments(script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script("(folder / rank).write_text(' '.join(sys.argv[2:]))")
    finished = launch(QUIET, worker, tmp_path, "--data.train", "a b", "--run", "c").wait()
    assert (finished.outputs, finished.errors) == ([""], [""])
    assert [(tmp_path / rank).read_text(encoding="utf-8") for rank in "01"] == ["--data.train a b --run c"] * 2


def test_user_error_of_the_real_command(tmp_path: Path) -> None:
    arguments = options(tmp_path / "missing.tsv", tmp_path / "run")
    finished = launch(PLAIN, "-m", "dist_s2s.train", *arguments).wait(1)
    stderr = finished.errors[0]
    said = sorted(line for line in stderr.splitlines() if ": error: " in line)
    message = f"error: {tmp_path / 'missing.tsv'} does not exist"
    assert [line.startswith(f"rank {rank}: {message}") for rank, line in enumerate(said)] == [True, True], stderr
    assert finished.output == ""
    assert f'File "{ROOT / "dist_s2s"}' not in stderr  # torchrun's own traceback is none of ours


def test_nothing_is_added_to_a_user_error(script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script(
        "sys.stderr.write(f'rank {rank}: error: mistaken\\n')\n"  # one write, where print has two
        "(folder / rank).touch()\n"
        "while not all((folder / peer).exists() for peer in '01'): time.sleep(0.01)\n"
        "sys.exit(2)"
    )
    finished = launch(QUIET, worker, tmp_path).wait(2)
    assert sorted(finished.errors[0].splitlines()) == [f"rank {rank}: error: mistaken" for rank in "01"]
    assert finished.output == ""


def test_crash_is_reported(script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script("if rank == '1': raise RuntimeError('boom')\ntime.sleep(600)")
    stderr = launch(QUIET, worker, tmp_path).wait(1).errors[0]
    assert "RuntimeError: boom" in stderr
    assert "rank      : 1" in stderr
    assert "exitcode  : 1" in stderr


def test_worker_that_is_killed(script: Callable[[str], Path], tmp_path: Path) -> None:
    worker = script("if rank == '1': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)")
    stderr = launch(QUIET, worker, tmp_path).wait(128 + signal.SIGKILL).errors[0]
    assert "rank      : 1" in stderr
    assert "exitcode  : -9" in stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_launcher_leaves_no_worker(
    stop: signal.Signals, script: Callable[[str], Path], tmp_path: Path
) -> None:
    worker = script("(folder / rank).write_text(str(os.getpid()))\ntime.sleep(600)")
    launched = launch(QUIET, worker, tmp_path)
    wait_for(launched, tmp_path / "0", tmp_path / "1")
    pids = [int((tmp_path / rank).read_text(encoding="utf-8")) for rank in "01"]
    assert all(map(is_alive, pids))
    launched.signal(stop)
    assert "Traceback" not in launched.wait(128 + stop).errors[0]
    assert not any(map(is_alive, pids))


def test_interrupted_training_is_saved(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = options(write_corpus(tmp_path), run_dir, training__max_steps=1_000_000)
    launched = launch(QUIET, "-m", "dist_s2s.train", *arguments)
    wait_for(launched, run_dir / "metrics.jsonl")
    launched.signal(signal.SIGINT)
    finished = launched.wait(128 + signal.SIGINT)
    assert "and saved; the same command goes on from here" in finished.output
    assert "Traceback" not in finished.errors[0]
    assert len(list_checkpoints(run_dir / "checkpoints")) == 1
