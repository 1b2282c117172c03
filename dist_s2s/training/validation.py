"""Loss and translations of a translator on held-out data, and when a run looks at them."""

from collections.abc import Callable
from contextlib import suppress

import torch

from dist_s2s.sharded import lookup
from dist_s2s.text.batches import evaluation_batches
from dist_s2s.text.corpus import Corpus
from dist_s2s.training.events import Event, StepEnd, StepsEnd, Validation, ValidationBatch
from dist_s2s.training.trainer import Trainer
from dist_s2s.translation.scoring import Pairs, bleu_score, translate_pairs
from dist_s2s.translation.translator import SENTENCES_PER_BATCH, Translator


class Validator:
    """A listener that validates every ``training.validate_every`` steps, and at the end unless interrupted."""

    def __init__(self, trainer: Trainer, corpus: Corpus, pairs: Pairs) -> None:
        """Take the validation data: ``pairs``, and as ids ``corpus``."""
        self._trainer, self._corpus, self._pairs = trainer, corpus, pairs

    def __call__(self, event: Event) -> None:
        """Validate if it is time (collective)."""
        match event:
            case StepEnd(step):
                if step % self._trainer.config.training.validate_every == 0:
                    self._validate()
            case StepsEnd(step):
                if not self._trainer.interrupted and self._trainer.progress.validated_step != step:
                    self._validate()

    def catch_up(self) -> None:
        """Validate where a run goes on from a step at which it was stopped instead (collective)."""
        progress = self._trainer.progress
        due = progress.step > 0 and progress.step % self._trainer.config.training.validate_every == 0
        if due and progress.validated_step != progress.step:
            self._validate()

    def _validate(self) -> None:
        """Translate and score; without a result if training is interrupted meanwhile."""
        trainer, progress = self._trainer, self._trainer.progress
        with trainer.paused(), suppress(_Interrupted):
            loss = validation_loss(trainer.translator, self._corpus, self._after_batch)
            rows = translate_pairs(trainer.translator, self._pairs, after_batch=self._after_batch)
            bleu = bleu_score(rows)
            progress.note_validation(bleu)
            minutes = round(progress.seconds / 60, 3)
            trainer.tell(Validation(progress.step, progress.epoch, minutes, loss, bleu, rows))

    def _after_batch(self) -> None:
        self._trainer.tell(ValidationBatch())
        if self._trainer.interrupted:
            raise _Interrupted


class _Interrupted(Exception):
    """A listener wants training to end; raised on all ranks."""


@torch.no_grad()
def validation_loss(translator: Translator, corpus: Corpus, after_batch: Callable[[], None] = lambda: None) -> float:
    """Return the mean negative log-likelihood of a target token, in nats, without label smoothing (collective).

    Args:
        translator: the model, whose mode (training or not) is left as it was.
        corpus: the validation data.
        after_batch: called after each batch, on every rank equally often; may call collectives.
    """
    ranks, total, tokens = translator.ranks, 0.0, 0
    with translator.evaluating():
        for batch in evaluation_batches(corpus, SENTENCES_PER_BATCH, ranks.rank, ranks.world_size):
            batch = batch.to(ranks.device)
            source, target = lookup([translator.source_table, translator.target_table], [batch.source, batch.target_in])
            states = translator.decoder_states(translator.core, batch, source, target)
            with translator.autocast():
                total += translator.output.exact_loss(states, batch.target_out).item()
            tokens += batch.global_target_tokens
            after_batch()
    return ranks.sum([total])[0] / tokens
