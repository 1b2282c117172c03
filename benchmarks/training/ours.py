"""Trains a translator as the `train` command does: sharded tables, batches and plans made in the background."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

import dist_s2s.training.trainer
from dist_s2s.distributed import Ranks
from dist_s2s.training.trackers import RunLog
from dist_s2s.training.trainer import Trainer, TrainingData
from training.breakdown import Stopwatch, replaced
from training.job import Job
from training.translator import Records, build_translator, count_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator


class _BoundedTrainer(Trainer):
    """The shipped trainer, which stops after some steps and keeps a record of each."""

    def run(self, steps: int) -> Records:
        """Train for so many steps (collective)."""
        self._steps, self._seen, self._norm = steps, (0.0, 0), 0.0
        with (
            replaced(self._meter, "add", self._noting_loss),
            replaced(dist_s2s.training.trainer, "clip_grad_norm_", self._noting_norm),
        ):
            self._records = Records()
            self._train()
        self._records.finish(self.ranks)
        return self._records

    def _noting_loss(self, add: Callable[[float, int], None]) -> Callable[[float, int], None]:
        def noting(loss: float, target_tokens: int) -> None:
            add(loss, target_tokens)
            self._seen = loss, target_tokens

        return noting

    def _noting_norm(self, clip: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noting(*args: Any) -> Tensor:
            norm = clip(*args)
            self._norm = float(norm)
            return norm

        return noting

    def _after_step(self) -> None:
        super()._after_step()
        loss, tokens = self._seen
        self._records.add(loss, self._norm, tokens)

    def _is_finished(self) -> bool:
        return len(self._records) >= self._steps


def train_ours(
    job: Job, accelerator: "Accelerator", ranks: Ranks, stopwatch: Stopwatch | None
) -> tuple[Records, dict[str, int]]:
    """Run the shipped loop (collective); return the steps' records and the numbers of parameters."""
    translator = build_translator(job, ranks)
    log = RunLog(job.config.run_dir, accelerator, ranks)
    trainer = _BoundedTrainer(job.config, TrainingData(job.examples, [], []), translator, accelerator, log)
    with nullcontext() if stopwatch is None else stopwatch.timing(trainer):
        return trainer.run(job.steps), count_parameters(translator)
