"""What a run reads before it trains."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.storage.checkpoint import text_directory
from dist_s2s.text.corpus import Corpus, ExampleList, encode_pairs, load_pairs
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.pair_corpus import PairCorpus
from dist_s2s.text.side import TextSide, build_sides
from dist_s2s.text.tokenizers import make_tokenizer
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
    valid, test = load_pairs(settings.valid, "valid"), load_pairs(settings.test, "test")
    if settings.stream is not None:
        source, target = growing_sides(config, checkpoint)
        return RunData(source, target, ExampleList(), PairCorpus.of(valid, source, target), valid, test, 0)
    train = load_pairs(settings.train, "train")
    if checkpoint is not None:
        source, target = load_text_sides(config, text_directory(checkpoint))
    else:
        source, target = build_sides(*side_settings(config), train)
    examples, dropped = encode_pairs(train, source, target, settings.max_length)
    valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
    return RunData(source, target, examples, valid_examples, valid, test, dropped)


def growing_sides(config: Config, checkpoint: Path | None) -> tuple[TextSide, TextSide]:
    """Return both sides of a run on a stream: those of its checkpoint, or with nothing but special tokens."""
    if checkpoint is not None:
        return load_text_sides(config, text_directory(checkpoint))
    data = config.data
    assert data.source_vocabulary_size is not None
    assert data.target_vocabulary_size is not None
    rules = data.min_frequency, data.vocabulary_halve_every
    return (
        TextSide(make_tokenizer(data.source_tokenizer), DynamicVocabulary(data.source_vocabulary_size, *rules)),
        TextSide(make_tokenizer(data.target_tokenizer), DynamicVocabulary(data.target_vocabulary_size, *rules)),
    )


def target_counts(corpus: Corpus, vocabulary_size: int) -> Tensor:
    """Count how often the model is to predict each target token: int64 [vocabulary_size]."""
    targets = (corpus[number].target for number in range(len(corpus)))
    ids = torch.tensor([token for target in targets for token in (*target, EOS)])
    return torch.bincount(ids, minlength=vocabulary_size)
