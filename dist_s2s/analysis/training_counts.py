"""How often words and tokens stand in the training data of a run: ``data.train`` and ``data.mix``, each pair once."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.storage.recorded_vectors import Ints
from dist_s2s.storage.run_files import check_run, data_changes, describe_data
from dist_s2s.text.corpus import data_files, is_prepared, load_pairs
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import TextSide
from dist_s2s.text.token_files import TARGET_COUNTS
from dist_s2s.text.whole_words import count_words

_TEXTS_AT_A_TIME = 50_000
_COUNTED = ("data.train", "data.mix")


def word_counts(run_dir: Path, config: Config, target: TextSide) -> Mapping[str, int]:
    """Return how often each word stands in the target side of the training data. Calls no collectives.

    Raises:
        UserError: as ``token_counts``; or the data are a prepared corpus, which counts no words but tokens.
    """
    data, vocabulary = config.data, target.vocabulary
    if not isinstance(vocabulary, DynamicVocabulary) and not is_prepared(data.train):
        _check_data(run_dir, config)
        return count_words((target.readable(text) for text in _texts(config, "target")), target)
    if data.target_tokenizer not in ("words", "whitespace") or target.segmentation != "none":
        raise UserError("tokens of the training data are counted, not words, and these tokens are not whole words")
    merged: dict[str, int] = {}  # tokens that differ in their joiners are one word
    for token, count in zip(vocabulary.tokens, token_counts(run_dir, config, "target", target).tolist(), strict=False):
        word = target.tokenizer.detokenize([token])
        merged[word] = merged.get(word, 0) + count
    return merged


def word_counts_or_note(run_dir: Path, config: Config, target: TextSide) -> tuple[Mapping[str, int] | None, list[str]]:
    """Return what ``word_counts`` does and no note, or None and a note why there are none. Calls no collectives."""
    try:
        return word_counts(run_dir, config, target), []
    except UserError as error:
        return None, [f"errors by the frequency of words are left out: {error}"]


def token_counts(run_dir: Path, config: Config, name: str, side: TextSide) -> Ints:
    """Return how often each token of a side stands in the training data, int64 [V]. Calls no collectives.

    Args:
        run_dir: knows by their hashes which data it was trained on.
        config: the run's.
        name: of the side, "source" or "target".
        side: its tokens.

    Raises:
        UserError: the data are no longer there, or are others by now; or they are a prepared corpus, which is damaged
            or has not counted this side.
    """
    vocabulary, data = side.vocabulary, config.data
    if isinstance(vocabulary, DynamicVocabulary):
        return vocabulary.counts[: len(vocabulary)].copy()
    _check_data(run_dir, config)
    if is_prepared(data.train):
        if name == "source":
            raise UserError(f"{data.train} is a prepared corpus, which counts the tokens of its target side alone")
        counts = _saved_counts(Path(data.train) / TARGET_COUNTS, len(vocabulary))
    else:
        counts = np.zeros(len(vocabulary), dtype=np.int64)
    texts = iter(_texts(config, name))
    while some := list(islice(texts, _TEXTS_AT_A_TIME)):
        counts += np.bincount(side.encode_flat(some)[0], minlength=len(vocabulary))
    return counts


def training_pairs(run_dir: Path, config: Config) -> list[tuple[str, str]]:
    """Return the pairs of sentences that a run was trained on. Calls no collectives.

    Raises:
        UserError: the data are no longer there, are others by now, or are no text.
    """
    if not (pairs := training_texts(run_dir, config)):
        raise UserError("the training data are a prepared corpus, which has no text")
    return pairs


def training_texts(run_dir: Path, config: Config) -> list[tuple[str, str]]:
    """Return the pairs that are text, without those of a prepared corpus; it raises the same but for the last."""
    _check_data(run_dir, config)
    return _pairs(config)


def _check_data(run_dir: Path, config: Config) -> None:
    """Raise UserError unless the training data are those of the run; a stream's are never written down."""
    recorded = check_run(run_dir)
    there = {key: recorded[key] for key in _COUNTED if key in recorded}
    named = {key: getattr(config.data, key.removeprefix("data.")) for key in there}
    try:
        here = describe_data(
            {key: name for key, name in named.items() if name is not None},
            "phrasebook",
            lambda name: data_files(name, config.data.columns),
        )
    except OSError as error:
        raise UserError(f"the training data cannot be read: {error}") from None
    if changed := data_changes(there, here):
        raise UserError(f"the training data are not those that the run was trained on: {'; '.join(changed)}")


def _saved_counts(path: Path, size: int) -> Ints:
    """Return the counts that a prepared corpus has of ``size`` tokens; UserError if they are not that."""
    try:
        saved = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no NumPy array"
        raise UserError(f"{path} cannot be read ({reason}): prepare the corpus again") from None
    if not isinstance(saved, np.ndarray) or saved.shape != (size,) or not np.issubdtype(saved.dtype, np.integer):
        raise UserError(f"{path} does not hold the counts of the run's {size:,} tokens: prepare the corpus again")
    return saved.astype(np.int64)


def _texts(config: Config, name: str) -> list[str]:
    """Return one side of the training pairs that are text."""
    return [pair[name == "target"] for pair in _pairs(config)]


def _pairs(config: Config) -> list[tuple[str, str]]:
    """Return the training pairs that are text."""
    data = config.data
    if data.stream is not None:
        raise UserError("the training data of a run on a stream are gone")
    inputs = [] if is_prepared(data.train) else [data.train]
    if data.mix is not None:
        inputs.append(data.mix)
    return [pair for each in inputs for pair in load_pairs(each, "train", data.columns, data.skip_bad_lines)]
