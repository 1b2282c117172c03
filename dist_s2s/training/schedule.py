"""How far a run has come, and the learning rate that follows from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from dist_s2s import UserError, counted
from dist_s2s.config.training import Metric, TrainingConfig

METRIC_NAMES: dict[Metric, str] = {"bleu": "BLEU", "chrf": "chrF", "loss": "loss"}


@dataclass
class Progress:
    """Where training stands; saved in every checkpoint, the same on all ranks.

    epoch, position: the next global batch is number ``position`` of ``epoch``.
    seconds: training time so far, validation included, by the first rank's clock when the ranks last compared notes.
    target_tokens, step_seconds: what the training steps alone have seen and taken.
    skipped_steps: those of them that changed nothing, because a gradient was not finite.
    best_bleu, best_chrf, best_loss: of the best validation so far; that is at step ``best_step``.
    chosen_by: the metric that says which is the best, and for BLEU its tokenizer.
    validations: since when the best counts.
    metric_varied: the metric was not the same at all of them.
    stream_chunk, stream_bytes, stream_lines_before: chunks, bytes and lines of a stream before the one at hand.
    stream_lines: lines of the chunk at hand, whose words have been counted; 0 if none has been read. Of a stream,
        ``position`` is within the chunk, and ``epoch`` stays 0.
    stream_ended: no more came when the stream was last read.
    data: hash of the data that the best score was measured on, and training goes on with.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    target_tokens: int = 0
    step_seconds: float = 0.0
    skipped_steps: int = 0
    best_bleu: float = -1.0
    best_chrf: float = -1.0
    best_loss: float | None = None
    best_step: int = 0
    chosen_by: str = "BLEU (tokenizer 13a)"  # as it was before there was a choice
    validations: int = 0
    metric_varied: bool = False
    validated_step: int = -1
    validations_since_best: int = 0
    stream_chunk: int = 0
    stream_bytes: int = 0
    stream_lines_before: int = 0
    stream_lines: int = 0
    stream_ended: bool = False
    data: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any], checkpoint: Path) -> Self:
        """Return what a checkpoint says. Raises UserError for what only a later version can know."""
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise UserError(
                f"{checkpoint} is of a later version, which this one cannot go on with: {', '.join(unknown)}"
            )
        return cls(**values)

    def forget_best(self) -> None:
        """Let the next validation be the best so far."""
        self.best_bleu, self.best_chrf, self.best_loss = -1.0, -1.0, None
        self.best_step, self.validated_step, self.validations_since_best = 0, -1, 0
        self.validations, self.metric_varied = 0, False

    def advance(self, next_epoch: int, next_position: int, target_tokens: int) -> None:
        """Count a step."""
        self.step += 1
        self.epoch, self.position = next_epoch, next_position
        self.target_tokens += target_tokens

    def next_chunk(self, length: int) -> None:
        """Leave a chunk of ``length`` bytes behind."""
        self.stream_chunk, self.stream_bytes = self.stream_chunk + 1, self.stream_bytes + length
        self.stream_lines_before += self.stream_lines
        self.stream_lines = self.position = 0

    def note_validation(self, bleu: float, chrf: float, loss: float, metric: Metric) -> None:
        """Remember that this step was validated, and whether it is the best so far, by the metric and then the loss."""
        first = self.best_bleu < 0
        best_loss = math.inf if self.best_loss is None else self.best_loss
        values = {"bleu": (bleu, self.best_bleu), "chrf": (chrf, self.best_chrf), "loss": (-loss, -best_loss)}
        value, best = values[metric]
        self.validated_step = self.step
        self.validations += 1
        self.validations_since_best += 1
        self.metric_varied |= not first and value != best
        if first or value > best or (value == best and loss < best_loss):
            self.best_bleu, self.best_chrf, self.best_loss = bleu, chrf, loss
            self.best_step, self.validations_since_best = self.step, 0

    def end_reason(self, limits: TrainingConfig) -> str | None:
        """Return which limit is reached, or that patience is at its end; None if training goes on."""
        if limits.max_steps is not None and self.step >= limits.max_steps:
            return f"training.max_steps = {limits.max_steps} is reached"
        if limits.max_minutes is not None and self.seconds >= 60 * limits.max_minutes:
            return f"training.max_minutes = {limits.max_minutes:g} is reached"
        if limits.max_epochs is not None and self.epoch >= limits.max_epochs:
            return f"training.max_epochs = {limits.max_epochs} is reached"
        if self.stream_ended:
            return "the stream has ended"
        if limits.patience and self.validations_since_best >= limits.patience:
            name = METRIC_NAMES[limits.metric]
            return f"stopping early: no better {name} in {limits.patience} validation{'s' * (limits.patience > 1)}"
        return None

    def fraction(self, limits: TrainingConfig, batches_in_epoch: float) -> float:
        """Return the share of the run that is done, 0 … 1: of the limit, in steps, minutes or epochs, that is nearest.

        batches_in_epoch: of any one epoch; others may have a few more or less. Infinity for a stream.
        """
        done = [0.0]
        if limits.max_steps is not None:
            done.append(self.step / limits.max_steps)
        if limits.max_minutes is not None:
            done.append(self.seconds / 60 / limits.max_minutes)
        if limits.max_epochs is not None:
            done.append((self.epoch + self.position / batches_in_epoch) / limits.max_epochs)
        return min(1.0, max(done))


def warmup_warning(training: TrainingConfig, batches_in_epoch: float) -> str | None:
    """Return what to say of a warm-up that is not over when the run is; None if it is."""
    limits: list[float] = []
    if training.max_steps is not None:
        limits.append(training.max_steps)
    if training.max_epochs is not None:
        limits.append(training.max_epochs * batches_in_epoch)
    if not limits or training.warmup_steps < min(limits):
        return None
    return (
        f"the warm-up of {counted(training.warmup_steps, 'step')} is as long as the whole run of {min(limits):,} or "
        "longer, so the learning rate never reaches its peak; lower training.warmup_steps"
    )


def learning_rate(peak: float, step: int, warmup_steps: int, fraction: float) -> float:
    """Return a step's rate: linear warm-up to ``peak`` over ``warmup_steps``, times a linear decay to 0 at the end."""
    return peak * min(1.0, (step + 1) / max(1, warmup_steps)) * (1.0 - fraction)
