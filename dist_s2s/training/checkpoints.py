"""When a run saves, and which checkpoints it keeps."""

from dataclasses import asdict

from dist_s2s.storage.checkpoint import list_checkpoints, remove_checkpoint, save_checkpoint
from dist_s2s.training.events import CheckpointSaved, Event, StepEnd, StepsEnd, Validation
from dist_s2s.training.trainer import Trainer


class Checkpoints:
    """A listener that saves every ``training.checkpoint_every`` steps, after each validation, and if interrupted."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._folder = trainer.config.run_dir / "checkpoints"
        self._saved_step = -1

    def __call__(self, event: Event) -> None:
        """Save if it is time (collective)."""
        match event:
            case StepEnd(step):
                if self._trainer.interrupted or step % self._trainer.config.training.checkpoint_every == 0:
                    self._save()
            case Validation():
                self._save()
            case StepsEnd() if self._trainer.interrupted:  # in the last validation
                self._save()

    def _save(self) -> None:
        """Write a checkpoint of this step, once; remove those that are neither among the newest nor the best."""
        trainer, progress = self._trainer, self._trainer.progress
        if self._saved_step == progress.step:
            return
        with trainer.paused():
            path = save_checkpoint(self._folder, trainer.state, progress.step, asdict(progress), trainer.ranks)
            trainer.ranks.together(lambda: self._remove_old_ones() if trainer.ranks.is_first else None)
        self._saved_step = progress.step
        trainer.tell(CheckpointSaved(progress.step, path))

    def _remove_old_ones(self) -> None:
        for old in list_checkpoints(self._folder)[: -self._trainer.config.training.keep_checkpoints]:
            if old.name != f"step-{self._trainer.progress.best_step}":
                remove_checkpoint(old)
