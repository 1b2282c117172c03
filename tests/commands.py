"""The project's commands in processes of their own, as a user starts them.

Imports are most of a short command's life, so the processes are forked from one that has done them. Each runs
`python -m MODULE ARGUMENT ...`, or `python FILE.py ARGUMENT ...`, from there on: with its own arguments, environment,
stdin, stdout and stderr. What torchrun itself does is left to cli/test_torchrun, which starts it.
"""

import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests import forked

ROOT = Path(__file__).parents[1]
GRACE_SECONDS = 5.0  # for a command that has taken too long
_LAUNCHER_SETTINGS = ("ACCELERATE_", "OMPI_", "PMI_", "MV2_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "GLOO_")


@dataclass(frozen=True)
class Finished:
    """What the ranks of a command left behind, by rank."""

    outputs: list[str]
    errors: list[str]
    seconds: float

    @property
    def output(self) -> str:
        """Stdout of rank 0."""
        return self.outputs[0]


def clean_environment() -> dict[str, str]:
    """This process's environment without what any launcher put there, and with one thread a process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_LAUNCHER_SETTINGS)}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Command:
    """A command that runs, on one process or on several ranks with the environment that torchrun would give them."""

    def __init__(
        self,
        module: str,
        *arguments: object,
        ranks: int = 1,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = TemporaryDirectory(prefix="command-")
        self._finished: Finished | None = None
        folder = Path(self._folder.name)
        (folder / "in").write_bytes(stdin)
        self._files = [[folder / f"{name}-{rank}" for name in ("out", "err")] for rank in range(ranks)]
        port = _free_port()
        self.processes = []
        for rank in range(ranks):
            environ = clean_environment() | (_torchrun_environment(rank, ranks, port) if ranks > 1 else {})
            environ |= environment or {}
            argv = [module, *map(str, arguments)]
            files = [str(folder / "in"), *map(str, self._files[rank])]
            self.processes.append(forked.start(_run, (argv, environ, files)))
            if not rank:  # the first may have had to wait for the server that forks
                self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def signal(self, number: int) -> None:
        """Sends a signal to every rank."""
        for process in self.processes:
            assert process.pid is not None
            os.kill(process.pid, number)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        """Waits for the condition while the command runs; fails with its output if it ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline or any(process.exitcode is not None for process in self.processes):
                raise AssertionError(f"waited in vain\n{self._end()}")
            time.sleep(0.005)

    def wait(self, status: int = 0, timeout: float = 60.0) -> Finished:
        """Waits for the end; fails with all output unless every rank exits with ``status``."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        statuses = [process.exitcode for process in self.processes]
        finished = self._end()
        assert statuses == [status] * len(statuses), f"exit statuses {statuses}, not {status}\n{finished}"
        return finished

    def _end(self) -> Finished:
        """Ends what still runs; returns what all have left behind, also if it is called again."""
        if self._finished is not None:
            return self._finished
        for process in self.processes:
            process.terminate()  # torchrun then ends its workers
            process.join(GRACE_SECONDS)
            process.kill()
            process.join()
        outputs, errors = (
            [file.read_text(encoding="utf-8") for file in files] for files in zip(*self._files, strict=True)
        )
        self._folder.cleanup()
        self._finished = Finished(outputs, errors, time.monotonic() - self._started)
        return self._finished


def run(
    module: str,
    *arguments: object,
    ranks: int = 1,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    status: int = 0,
) -> Finished:
    """Runs a command to its end, and fails with its output unless every rank exits with ``status``."""
    return Command(module, *arguments, ranks=ranks, stdin=stdin, environment=environment).wait(status)


def _run(argv: list[str], environment: dict[str, str], files: list[str]) -> None:
    """In the new process: becomes `python -m argv`, or `python argv` if that begins with a file."""
    for descriptor, file in enumerate(files):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(file, flags), descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (multiprocessing gave it /dev/null)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are told to ignore it
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv.copy()
    if argv[0].endswith(".py"):
        sys.path.insert(0, str(Path(argv[0]).parent))
        runpy.run_path(argv[0], run_name="__main__")
        return
    sys.modules.pop(argv[0], None)  # runpy warns of a module that is already imported
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def _torchrun_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    return {key: str(value) for key, value in values.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
