"""The training loop. What happens around it, such as validation, listens to its events."""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.sharded import Lookahead, clip_grad_norm_
from dist_s2s.sharded.tables.background import PeerError
from dist_s2s.storage.checkpoint import load_training_state
from dist_s2s.storage.run_directory import is_checkpoint_of
from dist_s2s.storage.training_state import TrainingState
from dist_s2s.text.batches import global_batches
from dist_s2s.text.corpus import Corpus
from dist_s2s.text.mixed import of_epoch
from dist_s2s.training.events import Event, Listener, Paused, PhaseBegin, Resumed, RunEnd, StepEnd, StepsEnd
from dist_s2s.training.optimizers import freeze, make_average, make_core_optimizer, make_table_optimizer
from dist_s2s.training.schedule import Progress, learning_rate
from dist_s2s.training.steps import Step, training_steps
from dist_s2s.translation.translator import Translator

if TYPE_CHECKING:
    from accelerate import Accelerator


class Trainer:
    """Trains one translator. Every method is collective.

    Attributes:
        listeners: called with each event; see ``events``. None are attached here.
        next_steps: what ``fit`` works on, called again and again until there is a reason to end; ``steps``, unless
            training is on a stream.
        progress: where training stands.
        state: what training changes.
        interrupted: a listener sets it, on all ranks in the same step, to end training after that step.
        saved_step: the step of the newest checkpoint in the run directory; -1 if training has not saved any.
    """

    def __init__(self, config: Config, corpus: Corpus, translator: Translator, accelerator: "Accelerator") -> None:
        self.config, self.corpus, self.translator = config, corpus, translator
        self.ranks = translator.ranks
        self.tables = list(translator.tables.values())
        freeze(config, translator.core, translator.tables)
        self.core = accelerator.prepare(translator.core)  # DDP; the tables stay outside
        core_optimizer = make_core_optimizer(config, translator.core)
        table_optimizer = make_table_optimizer(config, translator.tables)
        average = make_average(config, translator.core, translator.tables)
        self.state = TrainingState(translator.core, core_optimizer, translator.tables, table_optimizer, average)
        self.progress = Progress()
        self.listeners: list[Listener] = []
        self.next_steps: Callable[[], Iterator[Step]] = self.steps
        groups = [*core_optimizer.param_groups, *table_optimizer.param_groups]
        self._peaks = [group["lr"] for group in groups]
        first = of_epoch(corpus, config.training.seed, epoch=0)
        first_epoch = global_batches(first, config.data.batch_tokens, config.training.seed, epoch=0)
        self.batches_in_epoch = len(first_epoch) or math.inf  # of a stream, which is one epoch
        self.interrupted = False
        self.saved_step = -1

    @property
    def fraction(self) -> float:
        """The share of the run that is done, 0 … 1."""
        return self.progress.fraction(self.config.training, self.batches_in_epoch)

    @property
    def end_reason(self) -> str | None:
        """Why training ends here, or None if it goes on."""
        return "interrupted" if self.interrupted else self.progress.end_reason(self.config.training)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, of whatever world size and layout."""
        manifest = self.ranks.together(lambda: load_training_state(checkpoint, self.state))
        self.progress = self.ranks.together(lambda: Progress.read(manifest["progress"], checkpoint))
        if self.ranks.all_agree(is_checkpoint_of(self.config.run_dir, checkpoint)):
            self.saved_step = self.progress.step
        best = checkpoint.with_name(f"step-{self.progress.best_step}")
        if not self.ranks.all_agree(is_checkpoint_of(self.config.run_dir, best)):
            self.progress.forget_best()  # it is in another run's directory, or was left behind on another course

    def fit(self) -> None:
        """Train until a limit, an early stop or an interruption, and tell the listeners why it ended."""
        while self.end_reason is None:
            self.train(self.next_steps())
        self.tell(StepsEnd(self.progress.step))
        assert self.end_reason is not None
        self.tell(RunEnd(self.progress.step, self.end_reason, interrupted=self.interrupted))

    def train(self, steps: Iterator[Step] | None = None) -> None:
        """Take step after step until there is a reason to end, or no more. At least one is taken, if there is any.

        Args:
            steps: what each step works on; None: ``self.steps()``, which have no end.
        """
        output = self.translator.output
        source_rows = self.translator.source_rows
        tables = [*source_rows.tables, self.translator.target_table, *output.lookup_tables]
        batches = Lookahead(
            tables,
            steps or self.steps(),
            lambda step: [*source_rows.ids(step.batch), *step.target_ids],
            self.ranks.plan_group,
            before_rows=lambda: self.tell(PhaseBegin("lookup")),
        )
        self.tell(PhaseBegin("data"))
        try:
            for step, rows in batches:
                self.train_step(step, rows)
                if self.end_reason is not None:
                    return
                self.tell(PhaseBegin("data"))
        except PeerError as error:  # that rank tells its user, in one line if it was a mistake, and so do the others
            raise UserError(str(error)) from None

    def steps(self) -> Iterator[Step]:
        """Return this rank's part of each global batch, from where training stands, epoch after epoch without end."""
        return training_steps(self.config, self.corpus, self.translator, replace(self.progress))

    def train_step(self, step: Step, rows: list[Tensor]) -> None:
        """Go forward, backward, and update with this rank's part of a global batch, whose rows have been looked up."""
        progress, batch, output = self.progress, step.batch, self.translator.output
        torch.manual_seed(_dropout_seed(self.config.training.seed, progress.step, self.ranks.rank))
        source_rows = self.translator.source_rows
        source, (target, *output_rows) = rows[: len(source_rows.tables)], rows[len(source_rows.tables) :]
        self.tell(PhaseBegin("forward"))
        states = self.translator.decoder_states(self.core, batch, source_rows.join(source), target)
        self.tell(PhaseBegin("loss"))
        with self.translator.autocast():
            loss = output.training_loss(states, batch.target_out, step.sample, output_rows)
        loss = loss / batch.global_target_tokens
        self._tell_phases_of_backward(states, rows)
        self.tell(PhaseBegin("backward"))
        # DDP and the tables average over ranks: times world_size, a gradient is that of the mean over all tokens.
        (loss * self.ranks.world_size).backward()
        self.tell(PhaseBegin("clip"))
        norm = clip_grad_norm_(self.translator.core, self.tables, self.config.training.max_norm).item()
        self.tell(PhaseBegin("update"))
        self._update(norm)
        progress.advance(step.next_epoch, step.next_position, batch.global_target_tokens)
        self.tell(StepEnd(progress.step, loss.item(), norm, batch.global_target_tokens))

    def _update(self, gradient_norm: float) -> None:
        """Move all parameters, unless the gradient is not finite, and forget the gradients."""
        training, progress = self.config.training, self.progress
        optimizers = (self.state.core_optimizer, self.state.table_optimizer)
        if not math.isfinite(gradient_norm):
            if training.nonfinite_gradient == "stop":
                raise UserError(
                    f"the gradient's norm is {gradient_norm} at step {progress.step}; lower training.learning_rate, "
                    f"which is {training.learning_rate}, and start again from the last checkpoint, or set "
                    "training.nonfinite_gradient to skip"
                )
            progress.skipped_steps += 1
        else:
            fraction = self.fraction
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            for group, peak in zip(groups, self._peaks, strict=True):
                group["lr"] = learning_rate(peak, progress.step, training.warmup_steps, fraction)
            with nullcontext() if self.state.average is None else self.state.average.following():
                for optimizer in optimizers:
                    optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    def _tell_phases_of_backward(self, states: Tensor, rows: list[Tensor]) -> None:
        """See to it that listeners hear when backward passes from one part of the model to the next."""
        if states.requires_grad:
            states.register_hook(lambda _: self.tell(PhaseBegin("core_backward")))
        # One node for the rows of all tables.
        lookup = next((found.grad_fn for found in rows if found.grad_fn is not None), None)
        if lookup is not None:
            lookup.register_prehook(lambda _: self.tell(PhaseBegin("lookup_backward")))
            lookup.register_hook(lambda *_: self.tell(PhaseBegin("average")))

    def tell(self, event: Event) -> None:
        """Call every listener with the event."""
        for listener in self.listeners:
            listener(event)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context within which the weights are those that the run is judged by: averages, if it keeps any."""
        return nullcontext() if self.state.average is None else self.state.average.in_place()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Tell the listeners that what happens within is not training."""
        self.tell(Paused())
        yield
        self.tell(Resumed())


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """Hash to a seed of its own for each step and rank, so that a resumed run drops the same units."""
    digest = hashlib.blake2b(f"dropout {seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
