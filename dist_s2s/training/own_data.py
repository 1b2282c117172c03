"""A run on a person's own files: prepared beside the run directory, and configured by what is in them."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dist_s2s import UserError, counted
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.distributed.start import available_cores
from dist_s2s.preparation.choosing import LOOK_PAIRS, Choice, choose_encoding, choose_sizes, unset
from dist_s2s.preparation.pipeline import prepare_corpus
from dist_s2s.preparation.plan import plan_of
from dist_s2s.preparation.prepared import adopt
from dist_s2s.preparation.progress import progress_bar
from dist_s2s.preparation.report import REASONS, report_lines
from dist_s2s.text.corpus import is_prepared
from dist_s2s.text.inputs import BadLines, Pair, open_inputs
from dist_s2s.text.inputs.reading import no_pairs
from dist_s2s.text.token_files import TARGET_COUNTS
from dist_s2s.translation.load import load_text_sides
from dist_s2s.translation.model import make_model

MINUTES = 20.0  # if no limit is set
_PROCESS_BYTES = 400 << 20  # with torch, before there is a model
_NUMBERS_PER_TOKEN = 60  # activations and what is kept for backward, for each unit of a layer
_LIMITS = {"max_minutes", "max_steps", "max_epochs"}


def own_data(config: Config, inputs: Sequence[str], ranks: Ranks) -> Config:
    """Return the configuration of a run on these inputs, and say what was chosen (collective).

    The first rank filters them and cuts validation and test pairs off, into RUN_DIR.corpus. What is set stays as it is;
    everything else depends on the inputs and the kind of device alone, so that the same command goes on with the run.

    Raises:
        UserError: on every rank, if an input cannot be used.
    """
    updates = ranks.on_first(lambda: _choose(config, inputs, ranks))
    return _updated(config, updates)


def _choose(config: Config, inputs: Sequence[str], ranks: Ranks) -> dict[str, Any]:
    for each in inputs:
        if is_prepared(each):
            raise UserError(f"{each} is a prepared corpus: train on it with --data.train {each}")
    encoding = _unset(choose_encoding(_first_pairs(config, inputs), config), config)
    updates = {choice.key: choice.value for choice in encoding}
    corpus = config.run_dir.with_name(f"{config.run_dir.name}.corpus")
    plan = plan_of(
        _updated(config, updates),
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
        manifest, _ = prepare_corpus(plan, corpus, available_cores(), progress)
    report = manifest["report"]
    tokens = int(np.load(corpus / TARGET_COUNTS).sum())
    sizes = _unset(choose_sizes(report["pairs"]["train"], tokens, ranks.device.type), config)
    if not _LIMITS & config.training.model_fields_set:
        sizes.append(Choice("training.max_minutes", MINUTES, "give --minutes for another limit"))
    updates |= {choice.key: choice.value for choice in sizes} | {"data.train": str(corpus)}
    lines = [*report_lines(report), f"the pairs are prepared in {corpus}; chosen, because nothing else was set:"]
    lines += [f"  {choice.line()}" for choice in (*encoding, *sizes)]
    print("\n".join([*lines, _expectation(_updated(config, updates), corpus, ranks.world_size)]), flush=True)
    return updates


def _expectation(config: Config, corpus: Path, world_size: int) -> str:
    """Return how much memory and time the run will take."""
    source, target = load_text_sides(adopt(config), corpus)
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


def _unset(choices: Sequence[Choice], config: Config) -> list[Choice]:
    sections = {name: getattr(config, name).model_fields_set for name in ("data", "model", "training")}
    return unset(choices, sections)


def _updated(config: Config, updates: dict[str, Any]) -> Config:
    """Return the configuration with some keys set, checked as a whole."""
    values = config.model_dump(exclude_unset=True)
    for key, value in updates.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    return Config.model_validate(values)
