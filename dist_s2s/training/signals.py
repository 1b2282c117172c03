"""SIGINT and SIGTERM end a run after a step or a batch of a validation, on all ranks together."""

import signal
from types import FrameType
from typing import Self

from dist_s2s.training.events import Event, StepEnd, StreamWait, ValidationBatch
from dist_s2s.training.trainer import Trainer

# torchrun kills a worker 30 seconds after it has asked it to stop.
STEPS_BETWEEN_CHECKS = 5
_LONG_STEP = 1.0  # seconds; with such steps, after each


class StopSignals:
    """A listener that interrupts the trainer, and a context manager: the signals are its own until it is left."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._signal = 0

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __call__(self, event: Event) -> None:
        """Ask all ranks, now and then, whether one was told to stop (one all_reduce)."""
        match event:
            case StepEnd(step) if step % STEPS_BETWEEN_CHECKS == 0 or self._are_steps_long:
                self._ask_all()
            case ValidationBatch() | StreamWait():
                self._ask_all()

    @property
    def _are_steps_long(self) -> bool:
        progress = self._trainer.progress  # the same on all ranks
        return progress.step_seconds > _LONG_STEP * progress.step

    def _ask_all(self) -> None:
        if self._trainer.ranks.sum([self._signal])[0] > 0:
            self._trainer.interrupted = True

    @property
    def exit_status(self) -> int | None:
        """What a process that a signal has stopped exits with; None if none has."""
        return 128 + (self._signal or signal.SIGTERM) if self._trainer.interrupted else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Only take note: the ranks stop together."""
        self._signal = number
