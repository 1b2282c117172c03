"""Real processes joined by gloo, started once and lent to one test after another.

    def sum_over_ranks(group: dist.ProcessGroup, start: int) -> Tensor:
        value = torch.tensor(start + dist.get_rank(group))
        dist.all_reduce(value, group=group)
        return value

    def test_sum(ranks: RankPool) -> None:
        assert ranks.run(sum_over_ranks, 10, world_size=2) == [21, 21]

The function must stand at the top of a module, since the ranks import it by name. Arguments and results
travel by value through pickle, tensors too. Each call starts from seed 0, float32 and one thread.
"""

import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from tests import forked
from tests.rank_worker import RANKS, RankError, serve

START_SECONDS = 60.0
GRACE_SECONDS = 2.0  # for the other ranks, once one has failed: they may be waiting for it in a collective


class RanksFailed(Exception):
    """A rank raised, died or hung. The text holds every rank's fate, traceback and output."""


class RankPool:
    """Four ranks, started by the first call and again after a failure; a context manager that ends them."""

    def __init__(self) -> None:
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._folder: TemporaryDirectory[str] | None = None
        self._rendezvous = 0
        self._made_groups = False  # by the task before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids by rank; empty while no rank runs."""
        return [process.pid for process in self._processes]

    def run(
        self, function: Callable[..., Any], *args: Any, world_size: int = RANKS, timeout: float = 60.0
    ) -> list[Any]:
        """Call function(group, *args) on the first world_size ranks; return what each returned, by rank.

        Raises RanksFailed if any rank raised, died or had no answer after timeout seconds; the next call then
        starts new processes.
        """
        answers = self._call_function((function, args, world_size), world_size, timeout)
        if any(isinstance(answer, RankError) for answer in answers):
            self._fail(answers)
        return answers

    def run_expecting_errors(
        self, function: Callable[..., Any], *args: Any, world_size: int = RANKS, timeout: float = 60.0
    ) -> list[RankError]:
        """Like run, for a function that must raise on every rank: return what each raised, by rank.

        Raises RanksFailed if any rank returned, died or hung.
        """
        answers = self._call_function((function, args, world_size), world_size, timeout)
        if not all(isinstance(answer, RankError) and answer.traceback for answer in answers):
            self._fail(answers)
        self._join_groups()  # the ranks may have left their collectives at different points
        return answers

    def close(self) -> None:
        """Kill the ranks; a later call starts new ones."""
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()
        self._processes, self._pipes = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        self._folder = TemporaryDirectory(prefix="ranks-")
        for rank in range(RANKS):
            pipe, far_end = forked.Pipe()
            self._processes.append(forked.start(serve, (rank, far_end, self._output(rank))))
            far_end.close()  # then the death of the rank reads as end of file
            self._pipes.append(pipe)
        self._join_groups()

    def _join_groups(self) -> None:
        assert self._folder is not None
        self._made_groups = False
        self._rendezvous += 1
        store = str(Path(self._folder.name) / f"store-{self._rendezvous}")
        answers = self._call(store, RANKS, START_SECONDS)
        if any(isinstance(answer, RankError) for answer in answers):
            self._fail(answers)

    def _call_function(self, task: object, world_size: int, timeout: float) -> list[Any]:
        if self._made_groups and self._processes:
            self._join_groups()  # each task finds the groups that it may expect, and the next ones get the same names
        return self._call(task, world_size, timeout)

    def _call(self, task: object, world_size: int, timeout: float) -> list[Any]:
        """Send the task to the first world_size ranks; return an answer or a RankError for each."""
        message = pickle.dumps(task)
        if not self._processes:
            self._start()
        pipes = self._pipes[:world_size]
        for rank, pipe in enumerate(pipes):
            Path(self._output(rank)).write_bytes(b"")
            try:
                pipe.send_bytes(message)
            except BrokenPipeError:
                continue  # dead already, which reading from it finds
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout
        while len(answers) < len(pipes):
            waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in answers}
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                answer, made_groups = self._receive(waiting[pipe])
                self._made_groups |= made_groups
                answers[waiting[pipe]] = answer
                if isinstance(answer, RankError):
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        hung = RankError("Hung", f"no answer (limit: {timeout:g} s, or {GRACE_SECONDS:g} s after another failed)")
        return [answers.get(rank, hung) for rank in range(len(pipes))]

    def _receive(self, rank: int) -> tuple[Any, bool]:
        try:
            return pickle.loads(self._pipes[rank].recv_bytes())
        except (EOFError, ConnectionResetError):
            self._processes[rank].join()
            return RankError("Died", f"exit code {self._processes[rank].exitcode}"), False

    def _fail(self, answers: Sequence[Any]) -> None:
        """Kill the ranks and raise RanksFailed with all that is known of each."""
        for rank, answer in enumerate(answers):
            if isinstance(answer, RankError) and answer.type_name == "Hung":
                os.kill(self._processes[rank].pid, signal.SIGUSR1)  # where does it hang? See serve
                time.sleep(0.1)
        report = []
        for rank, answer in enumerate(answers):
            fate = str(answer) if isinstance(answer, RankError) else "returned normally"
            output = Path(self._output(rank)).read_text(errors="replace").strip()
            report.append(f"--- rank {rank}: {fate}" + (f"\noutput of rank {rank}:\n{output}" if output else ""))
        self.close()
        raise RanksFailed("\n" + "\n".join(report))

    def _output(self, rank: int) -> str:
        assert self._folder is not None
        return str(Path(self._folder.name) / f"output-{rank}")
