"""Figures of the training steps since the last report: of all ranks together, and of each."""

import time
from itertools import chain

from dist_s2s.training.events import CheckpointBegin, Event, Paused, PhaseBegin, Report, Resumed, StepEnd, StreamWait
from dist_s2s.training.performance import FIGURES, PartClock, figures
from dist_s2s.training.trainer import Trainer


class Meter:
    """A listener that counts what each step has seen, and reports it every ``training.log_every`` steps.

    Pauses are not counted: a report comes before each, and after it the count begins anew. The clock of
    ``progress.seconds`` goes on; but while no step follows a checkpoint it stays what is saved there, so that a run
    that has ended, and is started again, tells the same.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._groups = list(dict.fromkeys(table.group for table in trainer.tables))  # each counts for all its tables
        self._clock = PartClock(trainer.ranks.device)
        self._start = time.monotonic() - trainer.progress.seconds
        self._saved_step = -1
        self._restart()

    def __call__(self, event: Event) -> None:
        """Count steps; report when it is due (one all_reduce)."""
        match event:
            case PhaseBegin(phase):
                self._clock.begin(phase)
            case StepEnd(step, loss, _, target_tokens):
                self._clock.end()
                self._loss += loss
                self._target_tokens += target_tokens
                self._steps += 1
                if step % self._trainer.config.training.log_every == 0:
                    self._report()
            case Paused():
                self._report()
            case StreamWait():
                self._share_clock()
            case CheckpointBegin(step):
                self._share_clock()
                self._saved_step = step
            case Resumed():
                if self._saved_step != self._trainer.progress.step:  # or else what it adds would be in no checkpoint
                    self._share_clock()
                self._restart()

    def _share_clock(self) -> None:
        """Tell all ranks how long the first has trained (one all_reduce)."""
        seconds = time.monotonic() - self._start if self._trainer.ranks.is_first else 0.0
        [self._trainer.progress.seconds] = self._trainer.ranks.sum([seconds])

    def _restart(self) -> None:
        """Forget everything but the clock."""
        self._loss, self._target_tokens, self._steps = 0.0, 0, 0
        self._window_start = time.monotonic()
        self._clock.reset()
        for group in self._groups:
            group.statistics.reset()

    def _report(self) -> None:
        """Tell the listeners, if there was any step since the last time (one all_reduce)."""
        if self._steps == 0:
            return
        trainer, ranks, progress = self._trainer, self._trainer.ranks, self._trainer.progress
        now, exchange = time.monotonic(), [group.statistics for group in self._groups]
        # The clock is the first rank's.
        first = [now - self._start, now - self._window_start] if ranks.is_first else [0.0, 0.0]
        own = figures(self._clock, now - self._window_start, self._steps, exchange, ranks.device)
        # Each rank's figures have a place of their own, where the others add zeros.
        places = [own if rank == ranks.rank else [0.0] * len(own) for rank in range(ranks.world_size)]
        loss, progress.seconds, window, *flat = ranks.sum([self._loss, *first, *chain(*places)])
        progress.step_seconds += window
        rounded = [float(f"{value:.7g}") for value in flat]  # files are to be small
        by_rank = {name: rounded[place :: len(FIGURES)] for place, name in enumerate(FIGURES)}
        exchange_seconds = sum(by_rank["waited_seconds"]) / ranks.world_size
        values = {
            "epoch": progress.epoch,
            "learning_rate": trainer.state.core_optimizer.param_groups[0]["lr"],
            "loss": loss / self._steps,
            "tokens_per_second": self._target_tokens / window,
            "distinct_id_ratio": sum(by_rank["distinct_ids"]) / sum(by_rank["ids"]),
            "exchange_seconds": exchange_seconds,
            "exchange_share": exchange_seconds * self._steps / window,
        }
        if progress.skipped_steps:
            values["skipped_steps"] = progress.skipped_steps
        self._restart()
        trainer.tell(Report(progress.step, values, trainer.fraction, by_rank))
