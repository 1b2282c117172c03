"""What a report shows of word vectors: maps, similarities, and how they moved."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_s2s import UserError
from dist_s2s.analysis.answers import SavedSide, similarities
from dist_s2s.analysis.evolution import first_rows, nearest, norms
from dist_s2s.analysis.evolution_table import HEADINGS, evolution_rows
from dist_s2s.analysis.word_map import map_words
from dist_s2s.reports.blocks import Block, Heat, Lines, Map, Missing, Note, Points, Section, Table
from dist_s2s.storage.recorded_vectors import SIDES, Ints, RecordedVectors, vectors_file
from dist_s2s.text.tokenizers import SubwordTokenizer
from dist_s2s.text.tokenizers.spaces import SPACE
from dist_s2s.translation.translator import Translator

_MAPPED, _COMPARED, _MOVING = 300, 12, 8
_LOOKS, _NEIGHBOURS = 5, 3
_MOST_POINTS = 200
_HOW = "no vectors were recorded; to see how words move, train with --training.record_vectors_every 100, say"


def words_section(translator: Translator | str, checkpoint: Path | None, chosen: Sequence[str]) -> Section:
    """Return for each side a map of its most frequent words, and the cosines of some (collective).

    Args:
        translator: of the run, or why there is none.
        checkpoint: that its weights are of; None if there is none.
        chosen: words to compare, each on the sides that know it; none for frequent ones.

    Raises:
        UserError: on every rank, if neither side knows a chosen word.
    """
    if isinstance(translator, str) or checkpoint is None:
        reason = translator if isinstance(translator, str) else "there is no checkpoint"
        return Section("words", "Words", [Missing(reason)])
    blocks: list[Block] = []
    unknown: dict[str, list[UserError]] = {}
    for name in SIDES:
        saved = SavedSide.of_translator(translator, checkpoint, name)
        known, errors = _known(saved, chosen)
        for word, why in errors.items():
            unknown.setdefault(word, []).append(why)
        try:
            found = map_words(saved, [], _MAPPED, "pca", counted=False)
        except UserError as error:
            blocks.append(Missing(f"{name} words: {error}"))
            continue
        blocks.append(Map(f"{name} words", found))
        blocks += [Note(note) for note in found.notes]
        blocks.append(_cosines(saved, known if chosen else _comparable(found.words, saved)))
    for errors_of_word in unknown.values():
        if len(errors_of_word) == len(SIDES):
            raise errors_of_word[0]
    return Section("words", "Words", blocks)


def _comparable(tokens: Sequence[str], saved: SavedSide) -> list[str]:
    """Return the first tokens with letters that are words: of subwords, those at the beginning of one."""
    of_parts = isinstance(saved.side.tokenizer, SubwordTokenizer)
    words = (token for token in tokens if any(map(str.isalpha, token)))
    return list(islice((word for word in words if not of_parts or word.startswith(SPACE)), _COMPARED))


def _known(saved: SavedSide, chosen: Sequence[str]) -> tuple[list[str], dict[str, UserError]]:
    """Return the words that a side knows, and for each other one why not."""
    known, unknown = [], {}
    for word in dict.fromkeys(chosen):
        try:
            saved.words([word])
            known.append(word)
        except UserError as error:
            unknown[word] = error
    return known, unknown


def _cosines(saved: SavedSide, words: Sequence[str]) -> Block:
    title = f"Cosines of {saved.name} words"
    if not words:
        return Missing(f"{title}: there is none to compare")
    try:
        found = similarities(saved, words)
    except UserError as error:
        return Missing(f"{title}: {error}")
    names = [word["word"] for word in found["words"]]
    return Heat(title, names, names, found["cosines"])


def evolution_section(run_dir: Path) -> Section:
    """Return how far the recorded words moved."""
    blocks: list[Block] = []
    for name in SIDES:
        try:
            records = RecordedVectors.load(vectors_file(run_dir, name))
        except FileNotFoundError:
            continue
        except UserError as error:
            blocks.append(Missing(str(error)))
            continue
        if len(records.steps):
            blocks += _movement(records, name)
    if not blocks:
        blocks.append(Missing(_HOW))
    return Section("evolution", "How vectors moved", blocks)


def _movement(records: RecordedVectors, name: str) -> list[Block]:
    """Return charts of the first words' drift and norms, which words were close to them when, and a table of all."""
    table = Table(f"The {len(records.words):,} recorded {name} words", HEADINGS, evolution_rows(records))
    every = -(-len(records.steps) // _MOST_POINTS)
    kept = np.unique(np.append(np.arange(0, len(records.steps), every), len(records.steps) - 1))
    first = first_rows(records.rows[:, :_MOVING])
    steps, rows = records.steps[kept], records.rows[kept]
    drift = _lines(records, steps, np.linalg.norm(rows[:, :_MOVING] - first, axis=2))
    if not drift:
        return [table]
    return [
        Lines(f"Drift of {name} words from where they began", "step", "distance", drift),
        Lines(f"Norms of {name} words", "step", "norm", _lines(records, steps, norms(rows[:, :_MOVING]))),
        _neighbours(records, name),
        table,
    ]


def _lines(records: RecordedVectors, steps: Ints, values: NDArray[np.floating]) -> dict[str, Points]:
    """Return by word the values that are finite, from [steps, words]; words without any are left out."""
    lines = {
        word.word: [(step, value) for step, value in zip(steps.tolist(), column, strict=True) if math.isfinite(value)]
        for word, column in zip(records.words, values.T.tolist(), strict=False)
    }
    return {word: points for word, points in lines.items() if points}


def _neighbours(records: RecordedVectors, name: str) -> Table:
    """Return which recorded words were closest to the first ones, at steps spread evenly over the training."""
    chosen = np.unique(np.linspace(0, len(records.steps) - 1, _LOOKS).round().astype(np.int64))
    near, _ = nearest(records.rows[chosen], _NEIGHBOURS)
    rows = [
        [word.word, *(" ".join(records.words[other].word for other in some if other >= 0) for some in near[:, place])]
        for place, word in enumerate(records.words[:_MOVING])
    ]
    headings = ("word", *(f"step {step:,}" for step in records.steps[chosen].tolist()))
    return Table(f"Closest recorded {name} words while they moved", headings, rows)
