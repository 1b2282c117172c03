"""A run on a person's own files: prepared beside the run directory, and configured by what is in them."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dist_s2s import UserError, counted
from dist_s2s.config import Config, load_config
from dist_s2s.config.data import ENCODING_KEYS
from dist_s2s.config.loading import with_keys
from dist_s2s.config.schema import KEYS
from dist_s2s.distributed import Ranks
from dist_s2s.distributed.start import available_cores
from dist_s2s.preparation.choosing import LOOK_PAIRS, Choice, choose_encoding, choose_sizes, unset
from dist_s2s.preparation.pipeline import prepare_corpus
from dist_s2s.preparation.plan import plan_of
from dist_s2s.preparation.progress import progress_bar
from dist_s2s.preparation.report import REASONS, report_lines
from dist_s2s.storage.run_directory import CONFIG
from dist_s2s.text.corpus import is_prepared
from dist_s2s.text.inputs import BadLines, Pair, open_inputs
from dist_s2s.text.inputs.reading import no_pairs
from dist_s2s.text.token_files import TARGET_COUNTS
from dist_s2s.training.origin import read_origin
from dist_s2s.translation.model import make_model
from dist_s2s.translation.runs.load import load_text_sides

MINUTES = 20.0  # if no limit is set
_PROCESS_BYTES = 400 << 20  # with torch, before there is a model
_NUMBERS_PER_TOKEN = 60  # activations and what is kept for backward, for each unit of a layer
_LIMITS = {"max_minutes", "max_steps", "max_epochs"}
_OF_MODELS = {key for key in KEYS if key.startswith(("model.", "embedding.ngram"))} - {"model.output"}
_OF_BEGINNINGS = _OF_MODELS | {f"data.{key}" for key in ENCODING_KEYS}
_OF_RUNS = _OF_BEGINNINGS | {
    "data.batch_tokens", "training.warmup_steps", "training.validate_every", "training.checkpoint_every",
}  # fmt: skip


def own_data(config: Config, inputs: Sequence[str], ranks: Ranks) -> Config:
    """Return the configuration of a run on these inputs, and say what was chosen (collective).

    The first rank filters them and cuts validation and test pairs off, into RUN_DIR.corpus. What is set stays as it is.
    Everything else is as in the run that is there already, so that the same command goes on with it; of a run that
    begins with another, encoding and model are that one's; and what is left depends on the inputs and the kind of
    device.

    Raises:
        UserError: on every rank, if an input cannot be used, or keys that are set do not go with it.
    """
    return with_keys(config, ranks.on_first_for_long(lambda: _choose(config, inputs, ranks)))


def _choose(config: Config, inputs: Sequence[str], ranks: Ranks) -> dict[str, Any]:
    for each in inputs:
        if is_prepared(each):
            raise UserError(f"{each} is a prepared corpus: train on it with --data.train {each}")
    if config.data.vocabulary != "build":
        raise UserError(
            f"data.vocabulary: {config.data.vocabulary} needs pairs that are split already: give them as --data.train "
            "FILE, --data.valid FILE and --data.test FILE"
        )
    updates, lines = _taken_over(config)
    config = with_keys(config, updates)
    encoding = unset(choose_encoding(_first_pairs(config, inputs), config), config)
    updates |= {choice.key: choice.value for choice in encoding}
    config = with_keys(config, updates)
    run_dir = config.run_dir if config.run_dir.name else config.run_dir.absolute()  # . and / have no name
    corpus = run_dir.with_name(f"{run_dir.name}.corpus")
    plan = plan_of(
        config,
        inputs=tuple(inputs),
        valid=config.data.valid if "valid" in config.data.model_fields_set else None,
        test=config.data.test if "test" in config.data.model_fields_set else None,
        filters=tuple(REASONS),
        max_ratio=9.0,
        valid_size=None,
        test_size=None,
        seed=1,
        vocabulary_pairs=1_000_000,
    )
    with progress_bar() as progress:
        manifest, _ = prepare_corpus(plan, corpus, available_cores(), progress, option="--run_dir")
    report = manifest["report"]
    tokens = int(np.load(corpus / TARGET_COUNTS).sum())
    sizes = unset(choose_sizes(report["pairs"]["train"], tokens, ranks.device.type), config)
    if not _LIMITS & config.training.model_fields_set:
        sizes.append(Choice("training.max_minutes", MINUTES, "give --minutes for another limit"))
    updates |= {choice.key: choice.value for choice in sizes} | {"data.train": str(corpus)}
    config = with_keys(config, updates)
    lines = [*report_lines(report), f"the pairs are prepared in {corpus}", *lines]
    if encoding or sizes:
        lines += ["chosen, because nothing else was set:", *(f"  {choice.line()}" for choice in (*encoding, *sizes))]
    print("\n".join([*lines, _expectation(config, corpus, ranks.world_size)]), flush=True)
    return updates


def _taken_over(config: Config) -> tuple[dict[str, Any], list[str]]:
    """Return the keys that a run takes over from itself or from the one that it begins with, and what to say of it."""
    saved = config.run_dir / CONFIG
    if saved.is_file() and config.training.resume != "never":
        there, keys, line = load_config(saved, {}), _OF_RUNS, f"what is not set is as in {saved}"
        if not _LIMITS & config.training.model_fields_set:
            keys = keys | {f"training.{limit}" for limit in _LIMITS}
    elif config.training.init_from is not None:
        origin = config.training.init_from
        there, keys = read_origin(Path(origin)).config, _OF_BEGINNINGS
        line = f"encoding and model are as in {origin}, where they are not set"
    else:
        return {}, []
    values = there.model_dump()
    updates = {}
    for key in sorted(keys):
        section, _, name = key.partition(".")
        if name not in getattr(config, section).model_fields_set:
            updates[key] = values[section][name]
    return updates, [line]


def _expectation(config: Config, corpus: Path, world_size: int) -> str:
    """Return how much memory and time the run will take."""
    source, target = load_text_sides(config, corpus)
    with torch.device("meta"):
        core = make_model(config, nn.Identity())
    model, tokens = config.model, config.data.batch_tokens / world_size
    own = sum(parameter.numel() for parameter in core.parameters())
    inputs = len(target.vocabulary) + (0 if model.tie_source else len(source.vocabulary))
    outputs = len(target.vocabulary) * (1 if model.tie_embeddings else model.readout_dim + 1)  # if they are sharded
    shared, layers = inputs * model.embedding_dim + outputs, (model.encoder_depth + model.decoder_depth) / 2
    numbers = 4 * (own + shared / world_size) + _NUMBERS_PER_TOKEN * tokens * model.hidden_size * layers
    limits = [(getattr(config.training, f"max_{unit}"), unit) for unit in ("minutes", "steps", "epochs")]
    ends = " or ".join(
        f"{limit:g} {unit.removesuffix('s') if limit == 1 else unit}" for limit, unit in limits if limit is not None
    )
    processes = counted(world_size, "process", "processes")
    return f"estimated: {(_PROCESS_BYTES + 4 * numbers) / 2**20:,.0f} MiB in each of {processes}, for {ends}"


def _first_pairs(config: Config, inputs: Sequence[str]) -> list[Pair]:
    bad = BadLines(config.data.skip_bad_lines)
    pairs: list[Pair] = []
    opened = open_inputs(tuple(inputs), config.data.columns)
    for each in opened:
        for block in each.blocks():
            parsed = block.parse()
            pairs += islice(parsed.pairs, LOOK_PAIRS - len(pairs))
            bad.add(parsed.bad)
            if len(pairs) >= LOOK_PAIRS:
                return pairs
    bad.check()
    if not pairs:
        raise UserError(no_pairs([path for each in opened for path in each.paths], bad))
    return pairs
