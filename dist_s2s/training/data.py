"""What a run reads before it trains."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.text.corpus import Corpus, encode_pairs, load_pairs
from dist_s2s.text.side import TextSide, build_sides
from dist_s2s.text.vocabulary import EOS
from dist_s2s.training.origin import Origin
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


def read_data(config: Config, checkpoint: Path | None, origin: Origin | None = None) -> RunData:
    """Read all data files. Calls no collectives.

    A run that goes on keeps the vocabularies of its checkpoint's run.

    Raises:
        UserError: for a file that cannot be used, or words of the origin that do not fit.
    """
    settings = config.data
    train, valid = load_pairs(settings.train, "train"), load_pairs(settings.valid, "valid")
    test = load_pairs(settings.test, "test")
    if checkpoint is not None:
        source, target = load_text_sides(config, checkpoint.parent.parent)
    else:
        source, target = new_sides(config, train, origin)
    examples, dropped = encode_pairs(train, source, target, settings.max_length)
    valid_examples, _ = encode_pairs(valid, source, target, max_length=None)
    return RunData(source, target, examples, valid_examples, valid, test, dropped)


def new_sides(config: Config, train: Pairs, origin: Origin | None) -> tuple[TextSide, TextSide]:
    """Return both sides as ``data.vocabulary`` says: built from the training pairs, or the origin's.

    Raises:
        UserError: if the origin cuts text into other tokens.
    """
    choice, settings = config.data.vocabulary, side_settings(config)
    if origin is None or choice == "build":
        return build_sides(*settings, train)
    old = origin.source, origin.target
    for name, mine, theirs in zip(("source", "target"), settings, side_settings(origin.config), strict=True):
        if mine.tokenizer != theirs.tokenizer:
            raise UserError(
                f"data.vocabulary: {choice} needs the tokenizers of {origin.checkpoint}: data.{name}_tokenizer is "
                f"{theirs.tokenizer} there, {mine.tokenizer} here"
            )
    if choice == "keep":
        return old
    source, target = (mine.extended(new) for mine, new in zip(old, build_sides(*settings, train), strict=True))
    return source, target


def target_counts(corpus: Corpus, vocabulary_size: int) -> Tensor:
    """Count how often the model is to predict each target token: int64 [vocabulary_size]."""
    targets = (corpus[number].target for number in range(len(corpus)))
    ids = torch.tensor([token for target in targets for token in (*target, EOS)])
    return torch.bincount(ids, minlength=vocabulary_size)
