"""How far a run has come, and the learning rate that follows from it."""

from dataclasses import dataclass

from dist_s2s.config.schema import TrainingConfig


@dataclass
class Progress:
    """Where training stands; saved in every checkpoint, the same on all ranks.

    epoch, position: the next global batch is number ``position`` of ``epoch``.
    seconds: training time so far, validation included, by the first rank's clock when the ranks last compared notes.
    target_tokens, step_seconds: what the training steps alone have seen and taken.
    skipped_steps: those of them that changed nothing, because a gradient was not finite.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    seconds: float = 0.0
    target_tokens: int = 0
    step_seconds: float = 0.0
    skipped_steps: int = 0
    best_bleu: float = -1.0
    best_step: int = 0
    validated_step: int = -1
    validations_since_best: int = 0

    def forget_best(self) -> None:
        """Lets the next validation be the best so far."""
        self.best_bleu, self.best_step, self.validated_step, self.validations_since_best = -1.0, 0, -1, 0

    def is_finished(self, limits: TrainingConfig) -> bool:
        """True when the first of the limits is reached."""
        return (
            (limits.max_steps is not None and self.step >= limits.max_steps)
            or (limits.max_minutes is not None and self.seconds >= 60 * limits.max_minutes)
            or (limits.max_epochs is not None and self.epoch >= limits.max_epochs)
        )

    def fraction(self, limits: TrainingConfig, batches_in_epoch: int) -> float:
        """Share of the run that is done, 0 … 1: of the limit, in steps, minutes or epochs, that is nearest.

        batches_in_epoch: of any one epoch; others may have a few more or less.
        """
        done = [0.0]
        if limits.max_steps is not None:
            done.append(self.step / limits.max_steps)
        if limits.max_minutes is not None:
            done.append(self.seconds / 60 / limits.max_minutes)
        if limits.max_epochs is not None:
            done.append((self.epoch + self.position / batches_in_epoch) / limits.max_epochs)
        return min(1.0, max(done))


def learning_rate(peak: float, step: int, warmup_steps: int, fraction: float) -> float:
    """Linear warm-up to ``peak`` over ``warmup_steps`` steps, times a linear decay to 0 at the end of the run."""
    return peak * min(1.0, (step + 1) / max(1, warmup_steps)) * (1.0 - fraction)
