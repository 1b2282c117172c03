"""A training run from its configuration to summary.json."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks, joined_ranks
from dist_s2s.distributed.precision import settle_precision
from dist_s2s.preparation.prepared import adopt
from dist_s2s.storage.checkpoint import load_weights
from dist_s2s.storage.lock import RunLock
from dist_s2s.storage.run_directory import CONFIG, checkpoint_to_resume, claim, has_other_data
from dist_s2s.storage.run_files import check_run, data_id, describe_data
from dist_s2s.text.corpus import data_files, describe
from dist_s2s.training.accelerator import make_accelerator
from dist_s2s.training.checkpoints import Checkpoints
from dist_s2s.training.data import RunData, read_data, target_counts
from dist_s2s.training.events import Listener
from dist_s2s.training.guard import LossGuard
from dist_s2s.training.meter import Meter
from dist_s2s.training.schedule import warmup_warning
from dist_s2s.training.signals import StopSignals
from dist_s2s.training.trackers import RunLog, counted
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.validation import Validator, validation_loss
from dist_s2s.translation.load import best_checkpoint
from dist_s2s.translation.output import choose_output
from dist_s2s.translation.scoring import corpus_scores, translate_pairs
from dist_s2s.translation.translator import Translator

SAMPLES_AT_END = 10
_DATA_KEYS = ("train", "valid", "test")


@dataclass(frozen=True)
class Start:
    """What a run begins with, the same on all ranks."""

    config: Config  # nothing in it is ``auto`` but what resumes
    data: RunData
    checkpoint: Path | None
    data_id: str  # a hash of the data files' content
    has_other_data: bool  # than the run of the checkpoint
    precision_before: str | None  # of that run


def run_training(config: Config, verbose: bool = False, listeners: Sequence[Listener] = ()) -> None:
    """Read the data, train, score the best checkpoint on the test data, and write summary.json (collective).

    Args:
        config: the run's.
        verbose: show every parameter tensor, not just the parts of the model.
        listeners: called with each event of the training, after the run's own; see ``events``.
    """
    with joined_ranks(config.training.threads_per_rank) as ranks, ExitStack() as stack:
        config = ranks.together(partial(adopt, config))
        lock = RunLock(config.run_dir)
        ranks.together(lambda: stack.enter_context(lock) if ranks.is_first else None)
        start = prepare(config, ranks, lock)
        config = start.config
        accelerator = make_accelerator(ranks, config.run_dir)
        log = stack.enter_context(RunLog(config.run_dir, accelerator, ranks, describe(config.data.valid)))
        introduce(start, ranks, log)
        translator = Translator(config, start.data.source, start.data.target, ranks)
        log.parameters(translator.core, translator.tables, verbose)
        trainer = Trainer(config, start.data.train, translator, accelerator)
        begin(trainer, start, log)
        log.start_trackers(config.model_dump(mode="json"), trainer.progress)
        fit(trainer, start.data, log, listeners)
        log.write_summary(finish(config, trainer, start.data, log))


def prepare(config: Config, ranks: Ranks, lock: RunLock) -> Start:
    """Settle what the run is, and make the run directory its own (collective)."""
    if config.training.resume != "never":  # before anything in it is believed
        ranks.together(lambda: check_run(config.run_dir))
    checkpoint = ranks.together(lambda: checkpoint_to_resume(config))
    ranks.check_same("checkpoint to go on from", checkpoint)
    model = config.model
    precision = settle_precision(config.training.precision, ranks, model.embedding_dim, model.hidden_size)
    config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    data = ranks.together(lambda: read_data(config, checkpoint))
    config = ranks.together(lambda: settle_output(config, checkpoint, data, ranks.world_size))

    precision_before = ranks.together(lambda: _config_of(checkpoint).training.precision if checkpoint else None)

    def claim_directory() -> tuple[str, bool]:
        if not ranks.is_first:
            return "", False
        named = {f"data.{key}": getattr(config.data, key) for key in _DATA_KEYS}
        sources = describe_data(named, "phrasebook", lambda name: data_files(name, config.data.columns))
        is_other = has_other_data(config, checkpoint, sources)
        claim(config, checkpoint, lock, data.source.files("source") | data.target.files("target"), sources)
        return data_id(sources), is_other

    data_hash, is_other = json.loads(ranks.gather_texts(json.dumps(ranks.together(claim_directory)))[0])
    return Start(config, data, checkpoint, data_hash, is_other, precision_before)


def settle_output(config: Config, checkpoint: Path | None, data: RunData, world_size: int) -> Config:
    """Decide what ``model.output: auto`` means: what it did in the checkpoint's run, or by the layer's size.

    Raises:
        UserError: if the tables are to have fewer rows than a vocabulary has tokens.
    """
    tokens, rows = max(len(data.source.vocabulary), len(data.target.vocabulary)), config.embedding.num_embeddings
    if rows is not None and rows < tokens:
        raise UserError(
            f"embedding.num_embeddings is {rows}, but a vocabulary has {tokens} tokens; give at least {tokens}, or null"
        )
    if config.model.output != "auto":
        return config
    if checkpoint is not None:
        output = _config_of(checkpoint).model.output
    else:
        model = config.model
        output = choose_output(len(data.target.vocabulary), model.hidden_size, world_size, tied=model.tie_embeddings)
    return config.model_copy(update={"model": config.model.model_copy(update={"output": output})})


def _config_of(checkpoint: Path) -> Config:
    return load_config(checkpoint.parent.parent / CONFIG, {})


def introduce(start: Start, ranks: Ranks, log: RunLog) -> None:
    """Say what the run works on."""
    config, data = start.config, start.data
    log.say(
        f"{counted(len(data.train), 'training pair')} from {describe(config.data.train)}\n"
        f"{data.dropped:,} dropped, as longer than data.max_length = {config.data.max_length} tokens\n"
        f"{counted(len(data.valid_pairs), 'pair')} for validation, {len(data.test_pairs):,} for the test\n"
        f"{counted(len(data.source.vocabulary), 'source token')}, "
        f"{counted(len(data.target.vocabulary), 'target token')}, {config.model.output} output layer, "
        f"{config.training.precision}, {counted(ranks.world_size, 'rank')} on {ranks.device.type}"
    )


def begin(trainer: Trainer, start: Start, log: RunLog) -> None:
    """Go on from the checkpoint, or start anew (collective)."""
    config, checkpoint = start.config, start.checkpoint
    if checkpoint is None:
        trainer.progress.data = start.data_id
        counts = target_counts(start.data.train, len(start.data.target.vocabulary))
        trainer.translator.output.start_from(counts)
        warning = warmup_warning(config.training, trainer.batches_in_epoch)
        if warning is not None:
            log.say(warning)
        return
    trainer.resume(checkpoint)
    log.say(f"going on from {checkpoint}")
    if start.precision_before != config.training.precision:
        log.say(f"in {config.training.precision}, where the run was in {start.precision_before} before")
    # The run may know the other data already, where it was killed before it saved with them.
    if start.has_other_data or trainer.progress.data not in ("", start.data_id):
        trainer.progress.forget_best()
        log.say("with other data than before; the best score so far no longer counts")
    trainer.progress.data = start.data_id


def fit(trainer: Trainer, data: RunData, log: RunLog, listeners: Sequence[Listener] = ()) -> None:
    """Train with everything that listens to it (collective). Raises SystemExit if a signal has ended it."""
    with StopSignals(trainer) as signals:
        validator = Validator(trainer, data.valid, data.valid_pairs)
        trainer.listeners += [signals, Meter(trainer), validator, log, LossGuard(trainer), Checkpoints(trainer)]
        trainer.listeners += listeners
        validator.catch_up()
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
