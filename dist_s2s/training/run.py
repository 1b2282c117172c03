"""A training run from its configuration to summary.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import joined_ranks
from dist_s2s.storage.checkpoint import load_weights
from dist_s2s.storage.run_directory import CONFIG, checkpoint_to_resume, claim
from dist_s2s.text.corpus import Corpus, describe, encode_pairs, load_pairs
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary import EOS
from dist_s2s.training.checkpoints import Checkpoints
from dist_s2s.training.meter import Meter
from dist_s2s.training.signals import StopSignals
from dist_s2s.training.trackers import RunLog
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.validation import Validator, validation_loss
from dist_s2s.translation.load import best_checkpoint, load_text_sides
from dist_s2s.translation.output import choose_output
from dist_s2s.translation.scoring import Pairs, corpus_scores, translate_pairs
from dist_s2s.translation.translator import Translator

SAMPLES_AT_END = 10


def run_training(config: Config) -> None:
    """Read the data, train, score the best checkpoint on the test data, and write summary.json (collective)."""
    mixed_precision = "bf16" if config.training.precision == "bf16" else "no"
    with joined_ranks(mixed_precision, config.training.threads_per_rank, config.run_dir) as (accelerator, ranks):
        checkpoint = ranks.together(lambda: checkpoint_to_resume(config))
        ranks.check_same("checkpoint to go on from", checkpoint)
        data = ranks.together(lambda: read_data(config, checkpoint))
        config = ranks.together(lambda: settle(config, checkpoint, data, ranks.world_size))
        ranks.together(lambda: claim_run_directory(config, checkpoint, data) if ranks.is_first else None)
        with RunLog(config.run_dir, accelerator, ranks, describe(config.data.valid)) as log:
            log.say(
                f"{len(data.train):,} training pairs from {describe(config.data.train)}\n"
                f"{data.dropped:,} dropped, as longer than data.max_length = {config.data.max_length} tokens\n"
                f"{len(data.valid_pairs):,} pairs for validation, {len(data.test_pairs):,} for the test\n"
                f"{len(data.source.vocabulary):,} source tokens, {len(data.target.vocabulary):,} target tokens, "
                f"{config.model.output} output layer, {ranks.world_size} ranks on {ranks.device.type}"
            )
            translator = Translator(config, data.source, data.target, ranks)
            log.parameters(translator.core, translator.tables)
            trainer = Trainer(config, data.train, translator, accelerator)
            if checkpoint is not None:
                trainer.resume(checkpoint)
                log.say(f"going on from {checkpoint}")
            else:
                translator.output.start_from(target_counts(data.train, len(data.target.vocabulary)))
            log.start_trackers(config.model_dump(mode="json"), trainer.progress.step)
            fit(trainer, data, log)
            log.write_summary(finish(config, trainer, data, log))


@dataclass(frozen=True)
class RunData:
    """What a run reads: both sides' text tools, pairs as ids and as text, and how many training pairs were too long."""

    source: TextSide
    target: TextSide
    train: Corpus
    valid: Corpus
    valid_pairs: Pairs
    test_pairs: Pairs
    dropped: int


def read_data(config: Config, checkpoint: Path | None) -> RunData:
    """Read all data files. Calls no collectives.

    A run that goes on keeps the vocabularies of its checkpoint's run.
    """
    settings = config.data
    train, valid = load_pairs(settings.train, "train"), load_pairs(settings.valid, "valid")
    test = load_pairs(settings.test, "test")
    if checkpoint is not None:
        source, target = load_text_sides(config, checkpoint.parent.parent)
    else:
        source_tokenizer, target_tokenizer = map(make_tokenizer, (settings.source_tokenizer, settings.target_tokenizer))
        sources, targets = (source for source, _ in train), (target for _, target in train)
        source = TextSide.build(source_tokenizer, sources, settings.source_vocabulary_size, settings.min_frequency)
        target = TextSide.build(target_tokenizer, targets, settings.target_vocabulary_size, settings.min_frequency)
    examples, dropped = encode_pairs(train, source, target, settings.max_length)
    valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
    return RunData(source, target, examples, valid_examples, valid, test, dropped)


def target_counts(corpus: Corpus, vocabulary_size: int) -> Tensor:
    """Count how often the model is to predict each target token: int64 [vocabulary_size]."""
    targets = (corpus[number].target for number in range(len(corpus)))
    ids = torch.tensor([token for target in targets for token in (*target, EOS)])
    return torch.bincount(ids, minlength=vocabulary_size)


def settle(config: Config, checkpoint: Path | None, data: RunData, world_size: int) -> Config:
    """Decide what ``model.output: auto`` means: what it did in the checkpoint's run, or by the layer's size.

    Raises UserError if the tables are to have fewer rows than a vocabulary has tokens.
    """
    tokens, rows = max(len(data.source.vocabulary), len(data.target.vocabulary)), config.embedding.num_embeddings
    if rows is not None and rows < tokens:
        raise UserError(
            f"embedding.num_embeddings is {rows}, but a vocabulary has {tokens} tokens; give at least {tokens}, or null"
        )
    if config.model.output != "auto":
        return config
    if checkpoint is not None:
        output = load_config(checkpoint.parent.parent / CONFIG, {}).model.output
    else:
        model = config.model
        output = choose_output(len(data.target.vocabulary), model.hidden_size, world_size, tied=model.tie_embeddings)
    return config.model_copy(update={"model": config.model.model_copy(update={"output": output})})


def claim_run_directory(config: Config, checkpoint: Path | None, data: RunData) -> None:
    """Make the run directory this run's, vocabularies included. For the first rank alone."""
    claim(config, checkpoint)
    if checkpoint is None or checkpoint.parent.parent.resolve() != config.run_dir.resolve():
        data.source.save(config.run_dir, "source")
        data.target.save(config.run_dir, "target")


def fit(trainer: Trainer, data: RunData, log: RunLog) -> None:
    """Train with everything that listens to it (collective). Raises SystemExit if a signal has ended it."""
    with StopSignals(trainer) as signals:
        validator = Validator(trainer, data.valid, data.valid_pairs)
        trainer.listeners += [signals, Meter(trainer), validator, log, Checkpoints(trainer)]
        trainer.fit()
        if signals.exit_status is not None:
            raise SystemExit(signals.exit_status)


def finish(config: Config, trainer: Trainer, data: RunData, log: RunLog) -> dict[str, Any]:
    """Score the best checkpoint on the test data (collective); return what goes into summary.json."""
    translator, progress = trainer.translator, trainer.progress

    def load_best() -> None:
        best = best_checkpoint(config.run_dir)
        if best is not None:
            load_weights(best, translator.core, translator.tables)

    translator.ranks.together(load_best)
    rows = translate_pairs(translator, data.test_pairs)
    scores = corpus_scores(rows)
    shown = rows[:SAMPLES_AT_END]
    log.samples(f"{len(shown)} sentences of the test data, {describe(config.data.test)}:", shown)
    log.write_translations(rows)
    return {
        "bleu": round(scores.bleu, 2),
        "chrf": round(scores.chrf, 2),
        "signature": scores.bleu_signature,
        "test_data": describe(config.data.test),
        "valid_loss": round(validation_loss(translator, data.valid), 4),
        "valid_bleu": round(progress.best_bleu, 2),
        "best_step": progress.best_step,
        "steps": progress.step,
        "epochs": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.target_tokens / max(progress.step_seconds, 1e-9)),
        "world_size": translator.ranks.world_size,
    }
