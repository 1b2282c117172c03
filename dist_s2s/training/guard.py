"""A loss that explodes ends the run, instead of hours of work on a model that is lost."""

import math

from dist_s2s import UserError
from dist_s2s.training.events import Event, Report, Validation
from dist_s2s.training.trainer import Trainer

TIMES_GUESSING = 4  # an untrained model is at 1


class LossGuard:
    """A listener that raises UserError, on all ranks, if the loss is far above that of guessing.

    The rule: the mean loss of a report, or a validation's, is not finite or more than four times ln V, the loss of
    choosing evenly among the V target tokens. A report's that is not finite is let pass where
    ``training.nonfinite_gradient`` is ``skip``.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._training = trainer.config.training
        self._num_tokens = trainer.translator.target.vocabulary.num_ids
        self._limit = TIMES_GUESSING * math.log(self._num_tokens)

    def __call__(self, event: Event) -> None:
        """Look at each loss that is the same on all ranks."""
        match event:
            case Report(step, values):
                if math.isfinite(values["loss"]) or self._training.nonfinite_gradient == "stop":
                    self._check("loss", step, values["loss"])
            case Validation(step, loss=loss):
                self._check("validation loss", step, loss)

    def _check(self, what: str, step: int, loss: float) -> None:
        if not loss <= self._limit:
            raise UserError(
                f"the {what} is {loss:.4g} at step {step}, but more than {self._limit:.4g} = {TIMES_GUESSING} · "
                f"ln({self._num_tokens}) means that training has diverged; lower training.learning_rate, which is "
                f"{self._training.learning_rate:g}, or raise training.warmup_steps, and start again from the last "
                "checkpoint or with --training.resume never"
            )
