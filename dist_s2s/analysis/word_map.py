"""Words as points of a plane: those that are named, or the most frequent ones."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dist_s2s import UserError, counted
from dist_s2s.analysis.answers import Answer, SavedSide
from dist_s2s.analysis.projection import axes_of_table, axes_of_vectors, tsne
from dist_s2s.analysis.training_counts import token_counts
from dist_s2s.analysis.words import word_vectors
from dist_s2s.storage.durable_files import write_output
from dist_s2s.storage.recorded_vectors import Ints
from dist_s2s.text.extras import extra

Method = Literal["pca", "tsne"]
Floats = NDArray[np.float64]
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NEIGHBOURS = 10
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class WordMap:
    """Words and their places.

    Attributes:
        words: the most frequent first, if they were not named.
        places: [N, 2].
        vectors: [N, D].
        frequencies: of the words in the training data, [N], 0 for a word of several tokens; None if they are not known.
        shares: of the variance that each axis explains, by PCA alone.
        how: what the plane is, in words.
        notes: what the user should know.
    """

    words: list[str]
    places: Floats
    vectors: Floats
    frequencies: Ints | None
    shares: tuple[float, float] | None
    how: str
    notes: list[str]

    def answer(self) -> Answer:
        """Return it as plain values for JSON, without the vectors."""
        return {
            "words": self.words,
            "places": self.places.tolist(),
            "frequencies": None if self.frequencies is None else self.frequencies.tolist(),
            "explained_variance": self.shares,
            "how": self.how,
            "notes": self.notes,
        }

    def neighbours(self) -> list[list[int]]:
        """Return for each word those of the others of the highest cosine, at most ten, the closest first."""
        with np.errstate(invalid="ignore"):
            units = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        units = np.nan_to_num(units)
        number, found = min(_NEIGHBOURS, len(units) - 1), list[list[int]]()
        for begin in range(0, len(units), _ROWS_AT_A_TIME):
            cosines = units[begin : begin + _ROWS_AT_A_TIME] @ units.T
            cosines[np.arange(len(cosines)), np.arange(begin, begin + len(cosines))] = -np.inf
            found += np.argsort(-cosines, axis=1, kind="stable")[:, :number].tolist()
        return found


def map_words(saved: SavedSide, texts: Sequence[str], number: int, method: Method, *, counted: bool = True) -> WordMap:
    """Place words of a side in a plane.

    By PCA, named words lie in the plane in which they differ most, and the most frequent ones in that of all rows.

    Args:
        saved: the side.
        texts: the words; none for the most frequent.
        number: how many of the most frequent.
        method: of projection.
        counted: read the training data for the words' frequencies; otherwise the most frequent are taken to be the
            first of the vocabulary, which is nearly so for subwords and exactly so for all others.

    Raises:
        UserError: a word is unknown, or has no direction; or there are too few.
    """
    counts, notes = _counts(saved) if counted else (None, list[str]())
    if texts:
        found = saved.words(list(dict.fromkeys(texts)))
        vectors, words = word_vectors(found, saved.rows), [word.text for word in found]
        notes += [word.explanation for word in found if word.explanation]
        ids = [word.ids[0] if len(word.ids) == 1 else 0 for word in found]  # 0 is the padding, which never occurs
    else:
        ids = _most_frequent(saved, counts, number)
        vectors, words = saved.rows.fetch(torch.tensor(ids, dtype=torch.int64)), saved.tokens(ids)
        finite = vectors.isfinite().all(1)
        if not finite.all():
            notes.append(_left_out(int((~finite).sum())))
            kept = finite.nonzero()[:, 0].tolist()
            vectors, words, ids = vectors[finite], [words[place] for place in kept], [ids[place] for place in kept]
    if len(words) < 2:
        raise UserError(f"a map needs at least 2 words, but there are {len(words)}")
    frequencies = None if counts is None else counts[ids]
    if method == "tsne":
        how = f"t-SNE of {len(words):,} words by cosine: who is near whom means something, distances do not"
        return WordMap(words, tsne(vectors).numpy(), vectors.numpy(), frequencies, None, how, notes)
    axes = axes_of_vectors(vectors) if texts else axes_of_table(saved.rows, left_out=saved.reserved)
    first, second = axes.shares.tolist()
    of = f"these {len(words):,} words" if texts else f"all {axes.number:,} words"
    how = f"the plane of most variance of {of}: {first + second:.1%} of it ({first:.1%} and {second:.1%})"
    return WordMap(words, axes.project(vectors).numpy(), vectors.numpy(), frequencies, (first, second), how, notes)


def _left_out(number: int) -> str:
    return counted(
        number,
        "word whose vector is not finite is left out",
        "words whose vectors are not finite are left out",
    )


def write_parquet(words: WordMap, output: Path) -> None:
    """Write a row for each word with the columns text, x, y, vector and frequency, for Apple's embedding-atlas.

    Raises:
        UserError: pyarrow is missing, or the file cannot be written.
    """
    arrow = extra("pyarrow", "parquet", "writing Parquet")
    frequencies = [None] * len(words.words) if words.frequencies is None else words.frequencies
    floats = arrow.list_(arrow.float32(), words.vectors.shape[1])
    table = arrow.table(
        {
            "text": words.words,
            "x": words.places[:, 0],
            "y": words.places[:, 1],
            "vector": arrow.array(list(words.vectors.astype(np.float32)), type=floats),
            "frequency": arrow.array(frequencies, type=arrow.int64()),
        }
    )
    sink = arrow.BufferOutputStream()
    extra("pyarrow.parquet", "parquet", "writing Parquet").write_table(table, sink)
    write_output(output, sink.getvalue().to_pybytes())


def _counts(saved: SavedSide) -> tuple[Ints | None, list[str]]:
    try:
        return token_counts(saved.run_dir, saved.config, saved.name, saved.side), []
    except UserError as error:
        return None, [f"frequencies are not known, so the order is that of the vocabulary: {error}"]


def _most_frequent(saved: SavedSide, counts: Ints | None, number: int) -> list[int]:
    """Return ids of words by falling frequency; a vocabulary is in that order, but subwords only nearly so."""
    ids = np.arange(len(saved.reserved), saved.rows.num_rows)
    if counts is not None:
        ids = ids[np.argsort(-counts[ids], kind="stable")]
    tokens = saved.side.vocabulary.tokens
    return [index for index in ids.tolist() if not _BYTE.fullmatch(tokens[index])][:number]
