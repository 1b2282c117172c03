"""Loss and translations of a translator on held-out data, and when a run looks at them."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch

from dist_s2s.text.corpus import Corpus
from dist_s2s.training.events import Event, OtherValidation, StepEnd, StepsEnd, Validation, ValidationBatch
from dist_s2s.training.schedule import METRIC_NAMES
from dist_s2s.training.trainer import Trainer
from dist_s2s.translation.scores.scoring import Pairs, Scorer, Scores, translate_pairs
from dist_s2s.translation.translator import Translator

_VALIDATIONS_BEFORE_WARNING = 3  # a metric that was the same at all of them


class Validator:
    """A listener that validates every ``training.validate_every`` steps, and at the end unless interrupted."""

    def __init__(self, trainer: Trainer, corpus: Corpus, pairs: Pairs) -> None:
        """Take the validation data: ``pairs``, and as ids ``corpus``."""
        self._trainer, self._corpus, self._pairs = trainer, corpus, pairs
        self._scorer = Scorer(trainer.config.training.bleu_tokenizer, (reference for _, reference in pairs))

    def __call__(self, event: Event) -> None:
        """Validate if it is time (collective)."""
        match event:
            case StepEnd(step):
                if step % self._trainer.config.training.validate_every == 0:
                    self._validate()
            case StepsEnd(step):
                if not self._trainer.interrupted and self._trainer.progress.validated_step != step:
                    self._validate(is_last=True)

    def catch_up(self) -> None:
        """Validate where a run goes on from a step at which it was stopped instead (collective)."""
        progress = self._trainer.progress
        due = progress.step > 0 and progress.step % self._trainer.config.training.validate_every == 0
        if due and progress.validated_step != progress.step:
            self._validate()

    def _validate(self, is_last: bool = False) -> None:
        """Translate and score; without a result if training is interrupted meanwhile."""
        trainer, progress = self._trainer, self._trainer.progress
        with trainer.paused(), suppress(_Interrupted):
            after_batch = partial(_after_batch, trainer)
            with trainer.averaged():
                loss = validation_loss(trainer.translator, self._corpus, after_batch)
                found = translate_pairs(trainer.translator, self._pairs, after_batch=after_batch)
            scores = trainer.ranks.on_first(lambda: self._scorer.scores(found.rows))
            progress.note_validation(scores["bleu"], scores["chrf"], loss, trainer.config.training.metric)
            trainer.tell(
                Validation(
                    progress.step,
                    progress.epoch,
                    round(progress.seconds / 60, 3),
                    loss,
                    scores["bleu"],
                    scores["chrf"],
                    found.rows,
                    scores["signature"],
                    found.cut,
                    self._warning(scores, loss, is_last),
                )
            )

    def _warning(self, scores: Scores, loss: float, is_last: bool) -> str:
        """Say once, after some validations or at the end, that the metric cannot tell them apart; else nothing."""
        progress, metric = self._trainer.progress, self._trainer.config.training.metric
        is_time = progress.validations == _VALIDATIONS_BEFORE_WARNING or (
            is_last and 1 < progress.validations < _VALIDATIONS_BEFORE_WARNING
        )
        if progress.metric_varied or not is_time:
            return ""
        value = {"bleu": scores["bleu"], "chrf": scores["chrf"], "loss": loss}[metric]
        return (
            f"the {METRIC_NAMES[metric]} was {value:.2f} at all {progress.validations} validations, so it cannot tell "
            f"which is the best; the {'first one counts' if metric == 'loss' else 'loss decides'}. See training.metric "
            "and training.bleu_tokenizer"
        )


class OtherValidator:
    """A listener that scores pairs of another domain after each validation; it stands last."""

    def __init__(self, trainer: Trainer, pairs: Pairs) -> None:
        self._trainer, self._pairs = trainer, pairs
        self._scorer = Scorer(trainer.config.training.bleu_tokenizer, (reference for _, reference in pairs))

    def __call__(self, event: Event) -> None:
        """Translate and score (collective)."""
        if isinstance(event, Validation):
            trainer = self._trainer
            with trainer.averaged():
                found = translate_pairs(trainer.translator, self._pairs, after_batch=partial(_after_batch, trainer))
            scores = trainer.ranks.on_first(lambda: self._scorer.scores(found.rows))
            trainer.tell(OtherValidation(event.step, scores["bleu"], scores["chrf"], scores["signature"]))


class _Interrupted(Exception):
    """A listener wants training to end; raised on all ranks."""


def _after_batch(trainer: Trainer) -> None:
    trainer.tell(ValidationBatch())
    if trainer.interrupted:
        raise _Interrupted


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
        for batch in translator.batching.batches(corpus, ranks):
            states = translator.decoder_states(translator.core, batch, *translator.rows(batch))
            with translator.autocast():
                total += translator.output.exact_loss(states, batch.target_out).item()
            tokens += batch.global_target_tokens
            after_batch()
    return ranks.sum([total])[0] / tokens
