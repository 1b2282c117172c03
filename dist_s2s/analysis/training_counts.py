"""How often words and tokens stand in the training data of a run."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.storage.recorded_vectors import Ints
from dist_s2s.text.corpus import is_prepared, load_pairs
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import TextSide
from dist_s2s.text.token_files import TARGET_COUNTS
from dist_s2s.text.whole_words import count_words

_TEXTS_AT_A_TIME = 50_000


def word_counts(config: Config, target: TextSide) -> Mapping[str, int]:
    """Return how often each word stands in the target side of the training data. Calls no collectives.

    Raises:
        UserError: the data are no longer there; or they are a prepared corpus, which counts no words but tokens.
    """
    data, vocabulary = config.data, target.vocabulary
    if not isinstance(vocabulary, DynamicVocabulary) and not is_prepared(data.train):
        return count_words((target.readable(text) for text in _texts(config, "target")), target)
    if data.target_tokenizer not in ("words", "whitespace") or target.segmentation != "none":
        raise UserError("tokens of the training data are counted, not words, and these tokens are not whole words")
    merged: dict[str, int] = {}  # tokens that differ in their joiners are one word
    for token, count in zip(vocabulary.tokens, token_counts(config, "target", target).tolist(), strict=False):
        word = target.tokenizer.detokenize([token])
        merged[word] = merged.get(word, 0) + count
    return merged


def token_counts(config: Config, name: str, side: TextSide) -> Ints:
    """Return how often each token of a side stands in the training data, int64 [V]. Calls no collectives.

    Args:
        config: the run's.
        name: of the side, "source" or "target".
        side: its tokens.

    Raises:
        UserError: the data are no longer there; or they are a prepared corpus, and it has not counted this side.
    """
    vocabulary, data = side.vocabulary, config.data
    if isinstance(vocabulary, DynamicVocabulary):
        return vocabulary.counts[: len(vocabulary)].copy()
    if is_prepared(data.train):
        if name == "source":
            raise UserError(f"{data.train} is a prepared corpus, which counts the tokens of its target side alone")
        saved: Ints = np.load(Path(data.train) / TARGET_COUNTS, allow_pickle=False).astype(np.int64)
        return saved
    texts = iter(_texts(config, name))
    counts = np.zeros(len(vocabulary), dtype=np.int64)
    while some := list(islice(texts, _TEXTS_AT_A_TIME)):
        counts += np.bincount(side.encode_flat(some)[0], minlength=len(vocabulary))
    return counts


def _texts(config: Config, name: str) -> list[str]:
    data = config.data
    if data.stream is not None:
        raise UserError("the training data of a run on a stream are gone")
    pairs = load_pairs(data.train, "train", data.columns, data.skip_bad_lines)
    return [pair[name == "target"] for pair in pairs]
