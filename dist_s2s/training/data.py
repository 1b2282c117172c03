"""What a run reads before it trains."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.preparation.prepared import open_prepared
from dist_s2s.text.corpus import Corpus, encode_pairs, is_prepared, load_pairs
from dist_s2s.text.side import TextSide, build_sides
from dist_s2s.text.token_files import MappedCorpus
from dist_s2s.text.vocabulary import EOS
from dist_s2s.translation.load import load_text_sides, side_settings
from dist_s2s.translation.scoring import Pairs


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
    if is_prepared(settings.train):
        return _read_prepared(config, checkpoint)
    train = load_pairs(settings.train, "train", settings.columns, settings.skip_bad_lines)
    valid, test = _held_out(config)
    if checkpoint is not None:
        source, target = load_text_sides(config, checkpoint.parent.parent)
    else:
        source, target = build_sides(*side_settings(config), train)
    examples, dropped = encode_pairs(train, source, target, settings.max_length)
    valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
    return RunData(source, target, examples, valid_examples, valid, test, dropped)


def _read_prepared(config: Config, checkpoint: Path | None) -> RunData:
    """Open a prepared corpus, whose sides a new run takes over."""
    corpus = open_prepared(Path(config.data.train))
    corpus.check_fits(config)
    source, target = load_text_sides(config, corpus.folder if checkpoint is None else checkpoint.parent.parent)
    corpus.check_side("source", source)
    corpus.check_side("target", target)
    valid, test = _held_out(config)
    valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
    return RunData(source, target, corpus.train, valid_examples, valid, test, corpus.dropped)


def _held_out(config: Config) -> tuple[Pairs, Pairs]:
    data = config.data
    return (
        load_pairs(data.valid, "valid", data.columns, data.skip_bad_lines),
        load_pairs(data.test, "test", data.columns, data.skip_bad_lines),
    )


def target_counts(corpus: Corpus, vocabulary_size: int) -> Tensor:
    """Count how often the model is to predict each target token: int64 [vocabulary_size]."""
    if isinstance(corpus, MappedCorpus):
        return corpus.target_counts()
    targets = (corpus[number].target for number in range(len(corpus)))
    ids = torch.tensor([token for target in targets for token in (*target, EOS)])
    return torch.bincount(ids, minlength=vocabulary_size)
