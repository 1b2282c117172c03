"""A listener that writes what a few steps do, operation by operation, as a Chrome trace for each rank.

``trace/steps-100-105-rank-0.json`` in the run directory is opened by Perfetto (ui.perfetto.dev) and chrome://tracing.
Nothing is recorded, and nothing costs time, but in these steps.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function

from dist_s2s.storage.durable_files import naming
from dist_s2s.training.events import Event, Paused, Phase, PhaseBegin, StepEnd, StepsEnd
from dist_s2s.training.trainer import Trainer


class Tracer:
    """Traces the steps of ``training.trace``; their phases are spans, in which operations lie.

    Where training pauses between them, for a validation say, or ends, the trace ends. Of phases that are told in a
    thread of autograd's, on CUDA, there are no spans.

    Args:
        trainer: has not begun.
        say: shows a line to the user.
    """

    def __init__(self, trainer: Trainer, say: Callable[[str], None]) -> None:
        steps = trainer.config.training.trace
        assert steps is not None
        self._first, self._last = map(int, steps.split(":"))
        self._trainer, self._say = trainer, say
        self._begins_after = trainer.progress.step
        self._thread = threading.get_ident()
        self._profile: profile | None = None
        self._span: record_function | None = None

    def __call__(self, event: Event) -> None:
        """Begin and end the trace (collective when it ends), and spans (local)."""
        step = self._trainer.progress.step
        match event:
            case PhaseBegin("data") if step + 1 == self._first and self._profile is None:
                self._begin()
                self._begin_span("data")
            case PhaseBegin(phase) if self._profile is not None and threading.get_ident() == self._thread:
                self._end_span()
                self._begin_span(phase)
            case StepEnd():
                self._end_span()
                if step == self._last and self._profile is not None:
                    with self._trainer.paused():
                        pass  # of which this listener hears, too
            case Paused():
                self._write(step)
            case StepsEnd():
                self._write(step)
                if not self._begins_after < self._first <= step:
                    steps = f"{self._begins_after + 1} to {step}"
                    self._say(f"no trace: step {self._first} is not among those of this training, {steps}")

    def _begin(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._trainer.ranks.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)
        self._profile.start()

    def _begin_span(self, phase: Phase) -> None:
        self._span = record_function(phase)
        self._span.__enter__()

    def _end_span(self) -> None:
        if self._span is not None:
            self._span.__exit__(None, None, None)
            self._span = None

    def _write(self, step: int) -> None:
        """End the trace after a step, if one is being recorded, and write this rank's file (collective)."""
        if self._profile is None:
            return
        recorded, self._profile = self._profile, None
        self._end_span()
        recorded.stop()
        ranks = self._trainer.ranks
        folder = self._trainer.config.run_dir / "trace"
        name = f"steps-{self._first}-{step}-rank-"
        ranks.together(lambda: _export(recorded, folder / f"{name}{ranks.rank}.json"))
        self._say(f"traces of steps {self._first} to {step} are in {folder}/{name}*.json; see ui.perfetto.dev")


def _export(recorded: profile, path: Path) -> None:
    with naming(path):
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        recorded.export_chrome_trace(str(partial))
        os.replace(partial, path)
