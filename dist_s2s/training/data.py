"""What a run reads before it trains."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.preparation.prepared import open_prepared
from dist_s2s.storage.checkpoint import text_directory
from dist_s2s.text.corpus import Corpus, ExampleList, encode_pairs, is_prepared, load_pairs
from dist_s2s.text.mixed import MixedCorpus
from dist_s2s.text.pair_corpus import PairCorpus
from dist_s2s.text.side import TextSide
from dist_s2s.text.token_files import StoredCorpus
from dist_s2s.text.vocabulary import EOS
from dist_s2s.training.sides import make_sides
from dist_s2s.translation.runs.load import SavedRun, load_text_sides
from dist_s2s.translation.scores.scoring import Pairs


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
    other_pairs: Pairs = ()  # of another domain, to be scored too


def read_data(config: Config, checkpoint: Path | None, ranks: Ranks, origin: SavedRun | None = None) -> RunData:
    """Read all data files (collective).

    A run that goes on keeps the vocabularies of its checkpoint's run.

    Raises:
        UserError: for a file that cannot be used, or words of the origin that do not fit.
    """
    data = _read_own(config, checkpoint, ranks, origin)
    return ranks.together(lambda: _with_other_domain(config, data))


def _read_own(config: Config, checkpoint: Path | None, ranks: Ranks, origin: SavedRun | None) -> RunData:
    settings = config.data
    if settings.stream is None and is_prepared(settings.train):
        return ranks.together(lambda: _read_prepared(config, checkpoint))

    def read() -> tuple[Pairs, Pairs, Pairs]:
        is_stream = settings.stream is not None
        train = [] if is_stream else load_pairs(settings.train, "train", settings.columns, settings.skip_bad_lines)
        return train, *_held_out(config)

    train, valid, test = ranks.together(read)
    source, target = make_sides(config, checkpoint, train, ranks, origin)

    def encode() -> RunData:
        if settings.stream is not None:
            return RunData(source, target, ExampleList(), PairCorpus.of(valid, source, target), valid, test, 0)
        examples, dropped = encode_pairs(train, source, target, settings.max_length)
        valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
        return RunData(source, target, examples, valid_examples, valid, test, dropped)

    return ranks.together(encode)


def _read_prepared(config: Config, checkpoint: Path | None) -> RunData:
    """Open a prepared corpus, whose sides a new run takes over."""
    if config.data.vocabulary != "build":
        raise UserError(
            f"data.vocabulary: {config.data.vocabulary} needs pairs as text, but {config.data.train} is a prepared "
            "corpus, which has its vocabularies; leave it out, and rows go to the tokens of the same spelling"
        )
    corpus = open_prepared(Path(config.data.train))
    corpus.check_fits(config)
    source, target = load_text_sides(config, corpus.folder if checkpoint is None else text_directory(checkpoint))
    corpus.check_side("source", source)
    corpus.check_side("target", target)
    valid, test = _held_out(config)
    valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
    return RunData(source, target, corpus.train, valid_examples, valid, test, corpus.dropped)


def _with_other_domain(config: Config, data: RunData) -> RunData:
    """Return the data with the pairs of ``data.mix`` among them, and those of ``data.mix_valid`` beside them."""
    settings = config.data
    train, others = data.train, data.other_pairs
    if settings.mix_valid is not None:
        others = load_pairs(settings.mix_valid, "valid", settings.columns, settings.skip_bad_lines)
    if settings.mix is not None:
        if is_prepared(settings.mix):
            raise UserError(f"data.mix: {settings.mix} is a prepared corpus, whose ids are its own; give pairs as text")
        pairs = load_pairs(settings.mix, "train", settings.columns, settings.skip_bad_lines)
        examples, _ = encode_pairs(pairs, data.source, data.target, settings.max_length)
        train = MixedCorpus(train, examples, settings.mix_share)
    return replace(data, train=train, other_pairs=others)


def _held_out(config: Config) -> tuple[Pairs, Pairs]:
    data = config.data
    return (
        load_pairs(data.valid, "valid", data.columns, data.skip_bad_lines),
        load_pairs(data.test, "test", data.columns, data.skip_bad_lines),
    )


def target_counts(corpus: Corpus, vocabulary_size: int) -> Tensor:
    """Count how often the model is to predict each target token: int64 [vocabulary_size]."""
    if isinstance(corpus, MixedCorpus):
        corpus = corpus.own
    if isinstance(corpus, StoredCorpus):
        return corpus.target_counts()
    targets = (corpus[number].target for number in range(len(corpus)))
    ids = torch.tensor([token for target in targets for token in (*target, EOS)])
    return torch.bincount(ids, minlength=vocabulary_size)
