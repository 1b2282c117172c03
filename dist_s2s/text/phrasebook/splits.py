"""The embedded phrasebook: short everyday Chinese-English pairs, so that the first run needs no data.

The sentences are generated, not collected: a small grammar written for this project (`patterns`, filled
from `lexicon`) makes them all, and gives every Chinese sentence one translation. Scores on it show that
a model learns and composes; they say nothing about real text, and this must be said wherever they are shown.

How sentences are held out: most combine a few things, such as a subject and an activity, 她 + 喝 茶. A stable hash
of the combination sends all of its sentences, whatever their tense, negation or question, to one split. So every
word and every pattern of valid and test is known from training, but no training sentence has their combinations,
not even as part of a larger one. From the sentences held out a fixed number is taken, by hash again. Patterns that
combine nothing, such as set phrases, are for training only. 我 爱 自然 语言 处理 / I love natural language
processing comes first in test.
"""

from functools import cache
from itertools import combinations
from typing import Literal

from dist_s2s.text.phrasebook.grammar import Sentence, digest, sentences

Split = Literal["train", "valid", "test"]

SHOWCASE = "我 爱 自然 语言 处理"
HELD_OUT_PAIRS = 600  # in valid, and as many in test
_BUCKETS = 32  # of these, one is valid and one is test


def phrasebook(split: Split) -> list[tuple[str, str]]:
    """Return the pairs (Chinese segmented by spaces, English) of a split, always the same in the same order."""
    return [(sentence.source, sentence.target) for sentence in split_sentences()[split]]


@cache
def split_sentences() -> dict[Split, list[Sentence]]:
    """Generate everything and split it; each split is in the order of a hash, which is to say shuffled."""
    everything = {sentence.source: sentence for sentence in sentences()}
    showcase = everything[SHOWCASE].composition
    splits: dict[Split, list[Sentence]] = {"train": [], "valid": [], "test": []}
    for sentence in sorted(everything.values(), key=lambda each: (each.source != SHOWCASE, digest(each.source))):
        splits["test" if sentence.composition == showcase else _split_of(sentence.composition)].append(sentence)
    trained = _parts({sentence.composition for sentence in splits["train"]})
    valid, test = ([each for each in splits[name] if each.composition not in trained] for name in ("valid", "test"))
    return {"train": splits["train"], "valid": valid[:HELD_OUT_PAIRS], "test": test[:HELD_OUT_PAIRS]}


def _split_of(composition: frozenset[str]) -> Split:
    if not composition:
        return "train"
    bucket = digest(f"split: {' + '.join(sorted(composition))}") % _BUCKETS
    return "valid" if bucket == 0 else "test" if bucket == 1 else "train"


def _parts(compositions: set[frozenset[str]]) -> set[frozenset[str]]:
    """Return the compositions and all smaller ones of two or more members that they contain."""
    return {
        frozenset(part)
        for composition in compositions
        for size in range(2, len(composition) + 1)
        for part in combinations(composition, size)
    }
