"""A training run from its configuration to summary.json."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dist_s2s import counted
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks, joined_ranks
from dist_s2s.distributed.precision import settle_precision
from dist_s2s.preparation.prepared import adopt
from dist_s2s.reports.at_end import see_at_end, write_at_end
from dist_s2s.storage.checkpoint import load_weights, text_directory
from dist_s2s.storage.lock import RunLock
from dist_s2s.storage.run_directory import checkpoint_to_resume, claim, has_other_data
from dist_s2s.storage.run_files import check_run, data_id, describe_data
from dist_s2s.text.corpus import data_files, describe
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.tokenizers import check_installed
from dist_s2s.training.accelerator import check_trackers, make_accelerator
from dist_s2s.training.checkpoints import Checkpoints
from dist_s2s.training.data import RunData, read_data, target_counts
from dist_s2s.training.events import Listener
from dist_s2s.training.fine_tuning import start_from
from dist_s2s.training.guard import LossGuard
from dist_s2s.training.meter import Meter
from dist_s2s.training.own_data import own_data
from dist_s2s.training.recorder import VectorRecorder
from dist_s2s.training.schedule import METRIC_NAMES, warmup_warning
from dist_s2s.training.settle import config_of, find_origin, score_warning, settle
from dist_s2s.training.sides import size_notes
from dist_s2s.training.signals import StopSignals
from dist_s2s.training.stream import StreamSteps
from dist_s2s.training.trace import Tracer
from dist_s2s.training.trackers import SAMPLES_AT_VALIDATION, RunLog
from dist_s2s.training.trainer import Trainer
from dist_s2s.training.validation import OtherValidator, Validator, validation_loss
from dist_s2s.training.vectors import read_vectors
from dist_s2s.translation.runs.load import SavedRun, best_checkpoint, load_text_sides
from dist_s2s.translation.scores.scoring import Scorer, translate_pairs
from dist_s2s.translation.search.options import SearchOptions
from dist_s2s.translation.translator import Translator

SAMPLES_AT_END = 10
_DATA_KEYS = ("train", "valid", "test", "mix", "mix_valid")
_VECTOR_KEYS = ("source_vectors", "target_vectors")


@dataclass(frozen=True)
class Start:
    """What a run begins with, the same on all ranks."""

    config: Config  # nothing in it is ``auto`` but what resumes
    data: RunData
    checkpoint: Path | None
    data_id: str  # a hash of the data files' content
    has_other_data: bool  # than the run of the checkpoint
    precision_before: str | None  # of that run
    origin: SavedRun | None  # what a new run begins with


def run_training(
    config: Config, verbose: bool = False, listeners: Sequence[Listener] = (), inputs: Sequence[str] = ()
) -> None:
    """Read the data, train, score the best checkpoint on the test data, and write summary.json and report.html.

    Collective.

    Args:
        config: the run's.
        verbose: show every parameter tensor, not just the parts of the model.
        listeners: called with each event of the training, after the run's own; see ``events``.
        inputs: files to train on, instead of ``data.train``; keys that are not set are then chosen by what is in them.
    """
    with ExitStack() as locked:  # until the report is written
        _run(config, verbose, listeners, inputs, locked)


def _run(
    config: Config, verbose: bool, listeners: Sequence[Listener], inputs: Sequence[str], locked: ExitStack
) -> None:
    """Do it (collective)."""
    with joined_ranks(config.training.threads_per_rank) as ranks, ExitStack() as stack:
        lock = RunLock(config.run_dir)
        ranks.together(lambda: locked.enter_context(lock) if ranks.is_first else None)
        if inputs:
            config = own_data(config, inputs, ranks)
        config = ranks.together(partial(adopt, config))
        ranks.together(partial(check_trackers, config.training.trackers))
        start = prepare(config, ranks, lock)
        config = start.config
        accelerator = make_accelerator(ranks, config.run_dir, config.training.trackers)
        log = stack.enter_context(
            RunLog(config.run_dir, accelerator, ranks, describe(config.data.valid), config.training.resume)
        )
        introduce(start, ranks, log)
        translator = Translator(config, start.data.source, start.data.target, ranks)
        log.parameters(translator.core, translator.tables, verbose)
        trainer = Trainer(config, start.data.train, translator, accelerator)
        begin(trainer, start, log)
        frozen = read_vectors(config, translator, log.say, resuming=start.checkpoint is not None)
        trainer.listeners += [] if frozen is None else [frozen]
        if config.training.record_vectors_every is not None:
            samples = start.data.valid_pairs[:SAMPLES_AT_VALIDATION]
            trainer.listeners.append(VectorRecorder(trainer, samples, start.checkpoint, log.say))
        if config.data.stream is not None:
            trainer.next_steps = StreamSteps(trainer, stack)
        log.start_trackers(config.model_dump(mode="json"), trainer.progress)
        fit(trainer, start.data, log, listeners)
        log.write_summary(finish(config, trainer, start.data, log))
        seen = see_at_end(translator, log.say) if config.training.report else None
    if seen is not None and ranks.is_first:  # the others are free by now
        write_at_end(translator, seen, log.say)


def prepare(config: Config, ranks: Ranks, lock: RunLock) -> Start:
    """Settle what the run is, and make the run directory its own (collective)."""
    if config.training.resume != "never":  # before anything in it is believed
        ranks.together(lambda: check_run(config.run_dir))
    ranks.together(lambda: check_installed(config.data.source_tokenizer, config.data.target_tokenizer))
    checkpoint = ranks.together(lambda: checkpoint_to_resume(config))
    ranks.check_same("checkpoint to go on from", checkpoint)
    model = config.model
    precision = settle_precision(config.training.precision, ranks, model.embedding_dim, model.hidden_size)
    config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    origin = ranks.together(lambda: find_origin(config, checkpoint))
    data = read_data(config, checkpoint, ranks, origin)
    config = settle(config, checkpoint, origin, data, ranks)
    precision_before = ranks.together(lambda: config_of(checkpoint).training.precision if checkpoint else None)

    def claim_directory() -> tuple[str, bool]:
        is_stream = config.data.stream is not None  # whose content changes, and stands in no manifest
        named = {f"data.{key}": getattr(config.data, key) for key in _DATA_KEYS[is_stream:]}
        pairs = {key: name for key, name in named.items() if name is not None}
        sources = describe_data(pairs, "phrasebook", lambda name: data_files(name, config.data.columns))
        if config.embedding.freeze_vectors:  # without, they are read only once
            vectors = {f"data.{key}": getattr(config.data, key) for key in _VECTOR_KEYS}
            sources |= describe_data({key: path for key, path in vectors.items() if path is not None}, "phrasebook")
        is_other = has_other_data(config, checkpoint, sources)
        files = {} if is_stream else data.source.files("source") | data.target.files("target")  # checkpoints have them
        claim(config, checkpoint, lock, files, sources)
        return data_id(sources), is_other

    data_hash, is_other = ranks.on_first(claim_directory)
    return Start(config, data, checkpoint, data_hash, is_other, precision_before, origin)


def introduce(start: Start, ranks: Ranks, log: RunLog) -> None:
    """Say what the run works on."""
    config, data = start.config, start.data
    read = (
        f"{counted(len(data.train), 'training pair')} from {describe(config.data.train)}\n"
        f"{data.dropped:,} dropped, as longer than data.max_length = {config.data.max_length} tokens\n"
    )
    if config.data.stream is not None:
        read = f"training pairs from the stream {config.data.stream}\n"
    log.say(
        f"{read}"
        f"{counted(len(data.valid_pairs), 'pair')} for validation, {len(data.test_pairs):,} for the test\n"
        f"{counted(data.source.vocabulary.num_ids, 'source token')}, "
        f"{counted(data.target.vocabulary.num_ids, 'target token')}, {config.model.output} output layer, "
        f"{config.training.precision}, {counted(ranks.world_size, 'rank')} on {ranks.device.type}\n"
        f"translations of at most {SearchOptions.of(config).longest} tokens; the best by {_chosen_by(config)}"
    )
    for note in size_notes(config, data.source, data.target):
        log.say(note)
    warning = score_warning(config, data) if ranks.is_first else None
    if warning is not None:
        log.say(f"warning: {warning}")


def _chosen_by(config: Config) -> str:
    """Say what chooses the best checkpoint."""
    metric = config.training.metric
    return METRIC_NAMES[metric] + (f" (tokenizer {config.training.bleu_tokenizer})" if metric == "bleu" else "")


def begin(trainer: Trainer, start: Start, log: RunLog) -> None:
    """Go on from the checkpoint, or start anew (collective)."""
    config, checkpoint, chosen_by = start.config, start.checkpoint, _chosen_by(start.config)
    if checkpoint is None:
        trainer.progress.data, trainer.progress.chosen_by = start.data_id, chosen_by
        if config.data.stream is None:
            counts = target_counts(start.data.train, len(start.data.target.vocabulary))
            trainer.translator.output.start_from(counts)
        if start.origin is not None:
            log.say("\n".join(start_from(trainer, start.origin)))
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
    if trainer.progress.chosen_by != chosen_by:
        log.say(
            f"the best checkpoint is chosen by {chosen_by}, and was by {trainer.progress.chosen_by}; "
            "the best so far no longer counts"
        )
        trainer.progress.forget_best()
    trainer.progress.data, trainer.progress.chosen_by = start.data_id, chosen_by


def fit(trainer: Trainer, data: RunData, log: RunLog, listeners: Sequence[Listener] = ()) -> None:
    """Train with everything that listens to it (collective). Raises SystemExit if a signal has ended it."""
    with StopSignals(trainer) as signals:
        validator = Validator(trainer, data.valid, data.valid_pairs)
        trainer.listeners += [signals, Meter(trainer), validator, log, LossGuard(trainer), Checkpoints(trainer)]
        trainer.listeners += [Tracer(trainer, log.say)] if trainer.config.training.trace is not None else []
        trainer.listeners += listeners
        trainer.listeners += [OtherValidator(trainer, data.other_pairs)] if data.other_pairs else []
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
            sides = translator.source, translator.target
            for side, saved in zip(sides, load_text_sides(config, text_directory(best)), strict=True):
                if isinstance(side.vocabulary, DynamicVocabulary) and isinstance(saved.vocabulary, DynamicVocabulary):
                    side.vocabulary.take_over(saved.vocabulary)

    translator.ranks.together(load_best)
    found = translate_pairs(translator, data.test_pairs)
    scorer = Scorer(config.training.bleu_tokenizer, (reference for _, reference in data.test_pairs))
    scores = translator.ranks.on_first(lambda: scorer.all_scores(found.rows))
    shown = found.rows[:SAMPLES_AT_END]
    log.samples(f"{counted(len(shown), 'sentence')} of the test data, {describe(config.data.test)}:", shown)
    log.write_translations(found.rows)
    other = {}
    if data.other_pairs:
        others = translate_pairs(translator, data.other_pairs)
        of_others = translator.ranks.on_first(lambda: scorer.scores(others.rows))
        other = {"other_bleu": round(of_others["bleu"], 2), "other_chrf": round(of_others["chrf"], 2)}
    return {
        **other,
        "bleu": round(scores["bleu"], 2),
        "chrf": round(scores["chrf"], 2),
        "ter": None if scores["ter"] is None else round(scores["ter"], 2),
        "signature": scores["signature"],
        "chrf_signature": scores["chrf_signature"],
        "ter_signature": scores["ter_signature"],
        "translations_cut": found.cut,
        "test_data": describe(config.data.test),
        "valid_loss": round(validation_loss(translator, data.valid), 4),
        "valid_bleu": round(progress.best_bleu, 2),
        "valid_chrf": round(progress.best_chrf, 2),
        "metric": config.training.metric,
        "best_step": progress.best_step,
        "steps": progress.step,
        "epochs": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.target_tokens / max(progress.step_seconds, 1e-9)),
        "world_size": translator.ranks.world_size,
    }
