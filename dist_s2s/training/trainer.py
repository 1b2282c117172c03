"""The training loop."""

import hashlib
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Adam

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.sharded import (
    Lookahead,
    clip_grad_norm_,
)
from dist_s2s.storage.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_training_state,
    remove_checkpoint,
    save_checkpoint,
)
from dist_s2s.text.batches import global_batches
from dist_s2s.text.corpus import Example, describe
from dist_s2s.training.meter import Meter
from dist_s2s.training.optimizers import make_table_optimizer
from dist_s2s.training.schedule import Progress, learning_rate
from dist_s2s.training.steps import Step, training_steps
from dist_s2s.training.trackers import RunLog
from dist_s2s.training.validation import Pairs, translate_pairs, validation_loss
from dist_s2s.translation.scoring import bleu_score
from dist_s2s.translation.translator import Translator

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLES_AT_VALIDATION = 3
# torchrun kills a worker 30 seconds after it has asked it to stop.
STEPS_BETWEEN_SIGNAL_CHECKS = 5


@dataclass(frozen=True)
class TrainingData:
    """What the loop reads: training and validation pairs as ids, validation pairs also as text."""

    train: list[Example]
    valid: list[Example]
    valid_pairs: Pairs


class Trainer:
    """Trains one translator. Every method is collective."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        translator: Translator,
        accelerator: "Accelerator",
        log: RunLog,
    ) -> None:
        self.config, self.data, self.translator, self.log = config, data, translator, log
        self.ranks = translator.ranks
        self.tables = list(translator.tables.values())
        self.core = accelerator.prepare(translator.core)  # DDP and autocast; the tables stay outside
        core_optimizer = Adam(translator.core.parameters(), lr=config.training.learning_rate, fused=True)
        table_optimizer = make_table_optimizer(config, self.tables)
        self.state = TrainingState(translator.core, core_optimizer, translator.tables, table_optimizer)
        self.progress = Progress()
        self._checkpoints = config.run_dir / "checkpoints"
        self._peaks = (config.training.learning_rate, table_optimizer.param_groups[0]["lr"])
        first_epoch = global_batches(data.train, config.data.batch_tokens, config.training.seed, epoch=0)
        self._batches_in_epoch = len(first_epoch)
        self._meter = Meter(self.ranks, self.tables, seconds_before=0.0)
        self._signal = 0

    def resume(self, checkpoint: Path) -> None:
        """Continues from a checkpoint, of whatever world size and layout."""
        manifest = self.ranks.together(lambda: load_training_state(checkpoint, self.state))
        self.progress = Progress(**manifest["progress"])
        if checkpoint.parent.resolve() != self._checkpoints.resolve():
            self.progress.forget_best()  # it is not in this run's directory

    def fit(self) -> None:
        """Trains until a limit, an early stop, or SIGINT or SIGTERM: then it saves, and raises SystemExit."""
        self._meter = Meter(self.ranks, self.tables, seconds_before=self.progress.seconds)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if not self._is_finished():
                self._train()
            if self.progress.validated_step != self.progress.step:
                self._log()
                self.validate()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _train(self) -> None:
        translator = self.translator
        tables = [translator.source_table, translator.target_table, *translator.output.lookup_tables]
        steps = training_steps(self.config, self.data.train, translator, replace(self.progress))
        for step, rows in Lookahead(tables, steps, lambda step: step.ids, self.ranks.plan_group):
            self.train_step(step, rows)
            self._after_step()
            if self._is_finished():
                return

    def _after_step(self) -> None:
        """Logs, validates, saves and stops, each if it is due."""
        step, training = self.progress.step, self.config.training
        stop = step % STEPS_BETWEEN_SIGNAL_CHECKS == 0 and self.ranks.sum([self._signal])[0] > 0
        validate = step % training.validate_every == 0
        save = stop or step % training.checkpoint_every == 0
        if validate or save or step % training.log_every == 0:
            self._log()
        if validate:
            self.validate()
        elif save:
            self.save()
            self._meter.restart()
        if stop:
            self.log.say(f"stopped at step {step}, and saved; the same command goes on from here")
            raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def train_step(self, step: Step, rows: list[Tensor]) -> None:
        """Forward, backward and update with this rank's part of a global batch, whose rows have been looked up."""
        training, progress, batch = self.config.training, self.progress, step.batch
        torch.manual_seed(_dropout_seed(training.seed, progress.step, self.ranks.rank))
        source, target, *output_rows = rows
        states = self.core(source, batch.source_lengths, target, apply_output=False)
        with self.translator.autocast():
            loss = self.translator.output.training_loss(states, batch.target_out, step.sample, output_rows)
        loss = loss / batch.global_target_tokens
        # DDP and the tables average over ranks: times world_size, a gradient is that of the mean over all tokens.
        (loss * self.ranks.world_size).backward()
        norm = clip_grad_norm_(self.translator.core, self.tables, training.max_norm)
        if torch.isfinite(norm):
            self._update()
        elif training.nonfinite_gradient == "skip":
            progress.skipped_steps += 1
        else:
            raise UserError(
                f"the gradient's norm is {norm.item()} at step {progress.step}; lower training.learning_rate, which is "
                f"{training.learning_rate}, and start again from the last checkpoint, or set "
                "training.nonfinite_gradient to skip"
            )
        for optimizer in (self.state.core_optimizer, self.state.table_optimizer):
            optimizer.zero_grad()
        progress.step += 1
        progress.epoch, progress.position = step.next_epoch, step.next_position
        progress.target_tokens += batch.global_target_tokens
        self._meter.add(loss.item(), batch.global_target_tokens)

    def _update(self) -> None:
        training, progress = self.config.training, self.progress
        fraction = progress.fraction(training, self._batches_in_epoch)
        optimizers = (self.state.core_optimizer, self.state.table_optimizer)
        for optimizer, peak in zip(optimizers, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(peak, progress.step, training.warmup_steps, fraction)
            optimizer.step()

    def validate(self) -> None:
        """Loss and BLEU on the validation data; then saves."""
        progress = self.progress
        loss = validation_loss(self.translator, self.data.valid)
        rows = translate_pairs(self.translator, self.data.valid_pairs)
        bleu = bleu_score(rows)
        progress.validated_step = progress.step
        progress.validations_since_best += 1
        if bleu > progress.best_bleu:
            progress.best_bleu, progress.best_step, progress.validations_since_best = bleu, progress.step, 0
        minutes = round(progress.seconds / 60, 3)
        values = {"epoch": progress.epoch, "valid_loss": loss, "valid_bleu": bleu, "minutes": minutes}
        self.log.metrics(progress.step, values)
        self.log.samples(
            f"step {progress.step} · epoch {progress.epoch + 1} · {minutes:.1f} min · valid loss {loss:.4f} · "
            f"valid BLEU {bleu:.2f} on {describe(self.config.data.valid)}",
            rows[:SAMPLES_AT_VALIDATION],
        )
        self.save()
        self._meter.restart()

    def save(self) -> None:
        """Writes a checkpoint, and removes those that are neither among the newest nor the best."""
        save_checkpoint(self._checkpoints, self.state, self.progress.step, asdict(self.progress), self.ranks)

        def remove_old_ones() -> None:
            if self.ranks.is_first:
                for old in list_checkpoints(self._checkpoints)[: -self.config.training.keep_checkpoints]:
                    if old.name != f"step-{self.progress.best_step}":
                        remove_checkpoint(old)

        self.ranks.together(remove_old_ones)

    def _is_finished(self) -> bool:
        return self.progress.is_finished(self.config.training) or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        if not patience or self.progress.validations_since_best < patience:
            return False
        self.log.say(f"stopping early: no better BLEU in {patience} validations")
        return True

    def _log(self) -> None:
        """Figures of the steps since the last time, if there were any."""
        progress, report = self.progress, self._meter.report()
        if report is None:
            return
        progress.seconds = report.clock
        progress.step_seconds += report.window
        rate = self.state.core_optimizer.param_groups[0]["lr"]
        values = {"epoch": progress.epoch, "learning_rate": rate, **report.values}
        if progress.skipped_steps:
            values["skipped_steps"] = progress.skipped_steps
        self.log.metrics(progress.step, values)
        self.log.progress(values, progress.fraction(self.config.training, self._batches_in_epoch))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Only takes note: the ranks stop together."""
        self._signal = number


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """A seed of its own for each step and rank, so that a resumed run drops the same units."""
    digest = hashlib.blake2b(f"dropout {seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
