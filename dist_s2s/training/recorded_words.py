"""Which words a run records while it trains."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from dist_s2s import UserError
from dist_s2s.storage.recorded_vectors import Ints, RecordedWord
from dist_s2s.text.corpus import Corpus
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import TextSide
from dist_s2s.text.vocabulary import UNK

MOST_FREQUENT, RAREST, AT_MOST = 20, 5, 60  # of a side
_PAIRS_TO_COUNT = 100_000

Words = dict[str, list[RecordedWord]]  # by side


def named_words(names: Sequence[str], sides: Mapping[str, TextSide], known: Words) -> Words:
    """Return the words of ``training.record_words`` on each side that has them.

    Args:
        names: a token each, or a text that is one token.
        sides: by name.
        known: those that are recorded already; they keep their rows, also where others have taken them.

    Raises:
        UserError: no side has a word.
    """
    found: Words = {name: [] for name in sides}
    for word in dict.fromkeys(names):
        reasons = []
        for name, side in sides.items():
            old = next((each for each in known.get(name, ()) if each.word == word), None)
            ids = [] if old is not None else _ids(side, word)
            if old is None and len(ids) != 1:
                cut = " ".join(side.vocabulary.tokens[index] for index in ids)
                reasons.append(f"the {name} cuts it into {cut}" if ids else f"it is not in the {name} vocabulary")
            else:
                found[name].append(old or RecordedWord(word, ids[0]))
        if len(reasons) == len(sides):
            raise UserError(
                f"training.record_words: {word!r} is no token of the run: {', and '.join(reasons)}; name words that "
                "are, or leave training.record_words out"
            )
    return found


def _ids(side: TextSide, word: str) -> list[int]:
    """Return the ids of a word; none if it is unknown, or a part of it is."""
    ids = side.vocabulary.encode([word])
    if ids == [UNK]:
        ids = side.encode(word)
    return [] if UNK in ids else ids


def default_words(sides: Mapping[str, TextSide], corpus: Corpus, samples: Sequence[tuple[str, str]]) -> Words:
    """Return the most frequent words of each side, the rarest that occur, and those of the samples.

    Frequencies are counted in at most 100,000 training pairs, evenly spaced; a vocabulary of a stream has its own.

    Args:
        sides: "source" and "target", in this order.
        corpus: the training pairs.
        samples: sentence pairs.
    """
    numbers = range(0, len(corpus), max(1, len(corpus) // _PAIRS_TO_COUNT))
    words: Words = {}
    for column, (name, side) in enumerate(sides.items()):
        vocabulary = side.vocabulary
        if isinstance(vocabulary, DynamicVocabulary):
            counts = vocabulary.counts[: len(vocabulary)].copy()
        else:
            sentences = (corpus[number].target if column else corpus[number].source for number in numbers)
            counts = np.bincount(np.fromiter(chain.from_iterable(sentences), np.int64), minlength=len(vocabulary))
        counts[: vocabulary.num_reserved] = 0
        of_samples = chain.from_iterable(side.encode(pair[column]) for pair in samples)
        ids = dict.fromkeys([*_frequent_and_rare(counts), *of_samples])
        chosen = [index for index in ids if index >= vocabulary.num_reserved][:AT_MOST]
        words[name] = [RecordedWord(vocabulary.tokens[index], index) for index in chosen]
    return words


def _frequent_and_rare(counts: Ints) -> list[int]:
    """Return ids by falling count, equal ones in order: the first, and the last that have been counted at all."""
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist()
    return [*order[:MOST_FREQUENT], *order[MOST_FREQUENT:][-RAREST:]]
