"""A training run from its configuration to summary.json."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import joined_ranks
from dist_s2s.storage.checkpoint import load_weights
from dist_s2s.storage.run_directory import CONFIG, checkpoint_to_resume, claim
from dist_s2s.text.corpus import Example, describe, encode_pairs, load_pairs
from dist_s2s.text.tokenizers import make_tokenizer
from dist_s2s.text.vocabulary import EOS, Vocabulary
from dist_s2s.training.trackers import RunLog
from dist_s2s.training.trainer import Trainer, TrainingData
from dist_s2s.training.validation import Pairs, translate_pairs, validation_loss
from dist_s2s.translation.output import choose_output
from dist_s2s.translation.scoring import corpus_scores
from dist_s2s.translation.text_side import TextPipeline
from dist_s2s.translation.translator import Translator, best_checkpoint

SAMPLES_AT_END = 10


def run_training(config: Config) -> None:
    """Reads the data, trains, scores the best checkpoint on the test data, and writes summary.json (collective)."""
    mixed_precision = "bf16" if config.training.precision == "bf16" else "no"
    with joined_ranks(mixed_precision, config.training.threads_per_rank, config.run_dir) as (accelerator, ranks):
        checkpoint = ranks.together(lambda: checkpoint_to_resume(config))
        ranks.check_same("checkpoint to go on from", checkpoint)
        text, data, test_pairs, dropped = ranks.together(lambda: read_data(config, checkpoint))
        config = ranks.together(lambda: settle(config, checkpoint, text, ranks.world_size))
        ranks.together(lambda: claim_run_directory(config, checkpoint, text) if ranks.is_first else None)
        with RunLog(config.run_dir, accelerator, ranks) as log:
            log.say(
                f"{len(data.train):,} training pairs from {describe(config.data.train)}\n"
                f"{dropped:,} dropped, as longer than data.max_length = {config.data.max_length} tokens\n"
                f"{len(data.valid_pairs):,} pairs for validation, {len(test_pairs):,} for the test\n"
                f"{len(text.source_vocabulary):,} source tokens, {len(text.target_vocabulary):,} target tokens, "
                f"{config.model.output} output layer, {ranks.world_size} ranks on {ranks.device.type}"
            )
            translator = Translator(config, text, ranks)
            log.parameters(translator.core, translator.tables)
            trainer = Trainer(config, data, translator, accelerator, log)
            if checkpoint is not None:
                trainer.resume(checkpoint)
                log.say(f"going on from {checkpoint}")
            else:
                translator.output.start_from(target_counts(data.train, len(text.target_vocabulary)))
            log.start_trackers(config.model_dump(mode="json"), trainer.progress.step)
            trainer.fit()
            log.write_summary(finish(config, trainer, data, test_pairs))


def read_data(config: Config, checkpoint: Path | None) -> tuple[TextPipeline, TrainingData, Pairs, int]:
    """Text, training and validation data, test pairs, and how many training pairs were too long. Calls no collectives.

    A run that goes on keeps the vocabularies of its checkpoint's run.
    """
    settings = config.data
    train, valid = load_pairs(settings.train, "train"), load_pairs(settings.valid, "valid")
    test = load_pairs(settings.test, "test")
    if checkpoint is not None:
        text = TextPipeline.load(config, checkpoint.parent.parent)
    else:
        source_tokenizer, target_tokenizer = map(make_tokenizer, (settings.source_tokenizer, settings.target_tokenizer))
        sources = (source_tokenizer.tokenize(source) for source, _ in train)
        targets = (target_tokenizer.tokenize(target) for _, target in train)
        text = TextPipeline(
            source_tokenizer,
            target_tokenizer,
            Vocabulary.build(sources, settings.source_vocabulary_size, settings.min_frequency),
            Vocabulary.build(targets, settings.target_vocabulary_size, settings.min_frequency),
        )
    tools = (text.source_tokenizer, text.target_tokenizer, text.source_vocabulary, text.target_vocabulary)
    examples, dropped = encode_pairs(train, *tools, max_length=settings.max_length)
    valid_examples, _ = encode_pairs(valid, *tools, max_length=None)
    return text, TrainingData(examples, valid_examples, valid), test, dropped


def target_counts(examples: list[Example], vocabulary_size: int) -> Tensor:
    """How often the model is to predict each target token, int64 [vocabulary_size]."""
    ids = torch.tensor([token for example in examples for token in (*example.target, EOS)])
    return torch.bincount(ids, minlength=vocabulary_size)


def settle(config: Config, checkpoint: Path | None, text: TextPipeline, world_size: int) -> Config:
    """The configuration with ``model.output: auto`` decided: as the checkpoint's run did, or by the layer's size.

    Raises UserError if the tables are to have fewer rows than a vocabulary has tokens.
    """
    tokens, rows = max(len(text.source_vocabulary), len(text.target_vocabulary)), config.embedding.num_embeddings
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
        output = choose_output(len(text.target_vocabulary), model.hidden_size, world_size, tied=model.tie_embeddings)
    return config.model_copy(update={"model": config.model.model_copy(update={"output": output})})


def claim_run_directory(config: Config, checkpoint: Path | None, text: TextPipeline) -> None:
    """Makes the run directory this run's, vocabularies included. For the first rank alone."""
    claim(config, checkpoint)
    if checkpoint is None or checkpoint.parent.parent.resolve() != config.run_dir.resolve():
        text.save(config.run_dir)


def finish(config: Config, trainer: Trainer, data: TrainingData, test_pairs: Pairs) -> dict[str, Any]:
    """Scores the best checkpoint on the test data (collective); returns what goes into summary.json."""
    translator, progress, log = trainer.translator, trainer.progress, trainer.log

    def load_best() -> None:
        best = best_checkpoint(config.run_dir)
        if best is not None:
            load_weights(best, translator.core, translator.tables)

    translator.ranks.together(load_best)
    rows = translate_pairs(translator, test_pairs)
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
