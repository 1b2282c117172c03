"""When a run saves, and which checkpoints it keeps."""

from dataclasses import asdict

from dist_s2s.storage.checkpoint import list_checkpoints, remove_checkpoint, save_checkpoint, save_progress
from dist_s2s.training.events import CheckpointBegin, CheckpointSaved, Event, StepEnd, StepsEnd, Validation
from dist_s2s.training.trainer import Trainer


class Checkpoints:
    """A listener that saves every ``training.checkpoint_every`` steps, after each validation, and if interrupted."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._folder = trainer.config.run_dir / "checkpoints"

    def __call__(self, event: Event) -> None:
        """Save if it is time (collective)."""
        trainer = self._trainer
        is_saved = trainer.saved_step == trainer.progress.step
        match event:
            case StepEnd(step) if not is_saved:
                if trainer.interrupted or step % trainer.config.training.checkpoint_every == 0:
                    self._save()
            case Validation():
                if is_saved:
                    self._save_progress()
                else:
                    self._save()
            case StepsEnd() if trainer.interrupted and not is_saved:  # in the last validation
                self._save()

    def _save(self) -> None:
        """Write a checkpoint of this step; remove those that are neither among the newest nor the best."""
        trainer, progress = self._trainer, self._trainer.progress
        with trainer.paused():
            trainer.tell(CheckpointBegin(progress.step))
            files = trainer.translator.changing_files() if trainer.ranks.is_first else {}
            path = save_checkpoint(self._folder, trainer.state, progress.step, asdict(progress), trainer.ranks, files)
            trainer.ranks.together(lambda: self._remove_old_ones() if trainer.ranks.is_first else None)
        trainer.saved_step = progress.step
        trainer.tell(CheckpointSaved(progress.step, path))

    def _save_progress(self) -> None:
        """Add a validation's outcome to the checkpoint of this step. Its tensors stay: a kill must not lose them."""
        trainer, progress = self._trainer, self._trainer.progress
        path = self._folder / f"step-{progress.step}"
        trainer.ranks.together(lambda: save_progress(path, asdict(progress)) if trainer.ranks.is_first else None)
        trainer.tell(CheckpointSaved(progress.step, path))

    def _remove_old_ones(self) -> None:
        for old in list_checkpoints(self._folder)[: -self._trainer.config.training.keep_checkpoints]:
            if old.name != f"step-{self._trainer.progress.best_step}":
                remove_checkpoint(old)
