"""What can be asked of one side of a saved run, with answers in words, as plain values for JSON."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.analysis.neighbours import Neighbour, Neighbours, cosine_matrix
from dist_s2s.analysis.rows import TableRows
from dist_s2s.analysis.statistics import describe
from dist_s2s.analysis.words import Word, find_word, word_vectors
from dist_s2s.config import Config
from dist_s2s.storage.checkpoint import read_manifest, table_of_side
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.side import TextSide
from dist_s2s.translation.runs.load import read_run
from dist_s2s.translation.translator import Translator

Answer = dict[str, Any]


@dataclass(frozen=True)
class SavedSide:
    """One side of a run and the saved rows of its tokens.

    Attributes:
        name: "source" or "target".
        free_rows: how many rows of the table no token has.
    """

    checkpoint: Path
    config: Config
    name: str
    side: TextSide
    rows: TableRows
    free_rows: int

    @classmethod
    def open(cls, run_dir: Path, name: str) -> "SavedSide":
        """Return a side of a run's best checkpoint.

        Raises:
            UserError: if there is no run, no checkpoint, or a file of either is damaged.
        """
        run = read_run(run_dir)
        manifest = read_manifest(run.checkpoint)
        table = table_of_side(manifest, name)
        side = run.source if name == "source" else run.target
        count = len(side.vocabulary)
        free = manifest["tables"][table]["num_embeddings"] - count
        return cls(run.checkpoint, run.config, name, side, TableRows.of_checkpoint(run.checkpoint, table, count), free)

    @classmethod
    def of_translator(cls, translator: Translator, checkpoint: Path, name: str) -> "SavedSide":
        """Return a side of a translator with the rows of its ranks, which must all look at them together.

        Args:
            translator: with the weights of the checkpoint.
            checkpoint: the run's.
            name: "source" or "target".
        """
        side, table = getattr(translator, name), getattr(translator, f"{name}_table")
        count = len(side.vocabulary)
        rows = TableRows.of_table(table, count)
        return cls(checkpoint, translator.config, name, side, rows, table.num_embeddings - count)

    @property
    def run_dir(self) -> Path:
        """The run's directory, wherever it lies by now."""
        return self.checkpoint.parent.parent

    @property
    def reserved(self) -> range:
        """Ids of special tokens and tags, which are no words."""
        return range(self.side.vocabulary.num_reserved)

    def words(self, texts: Sequence[str]) -> list[Word]:
        """Return words by their tokens; UserError as ``find_word``."""
        return [find_word(text, self.side, self.name) for text in texts]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of ids."""
        return [self.side.vocabulary.tokens[index] for index in ids]


def statistics(saved: SavedSide) -> Answer:
    """Return the figures of the table; UserError if no row is finite."""
    vocabulary = saved.side.vocabulary
    counts = None
    if isinstance(vocabulary, DynamicVocabulary):
        counts = torch.from_numpy(vocabulary.counts[: saved.rows.num_rows])
    try:
        found = describe(saved.rows, counts)
    except ValueError as error:
        raise UserError(f"{saved.checkpoint}, {saved.name} side: {error}; look at another checkpoint") from None
    answer = asdict(found)
    answer["free_rows"] = saved.free_rows
    answer["non_finite_words"] = saved.tokens(answer.pop("non_finite_ids"))
    answer["dead_words"] = saved.tokens(answer.pop("dead_ids"))
    answer["duplicates"] = {
        "rows": found.duplicates.rows,
        "words": [saved.tokens(pair) for pair in found.duplicates.pairs],
    }
    return answer


def similarities(saved: SavedSide, texts: Sequence[str]) -> Answer:
    """Return the cosines of all pairs of words."""
    words = saved.words(texts)
    return {"words": _pieces(words), "cosines": cosine_matrix(word_vectors(words, saved.rows)).tolist()}


def nearest(saved: SavedSide, texts: Sequence[str], number: int, *, csls: bool) -> Answer:
    """Return the neighbours of each word, without the tokens that it is made of."""
    words = saved.words(texts)
    vectors = word_vectors(words, saved.rows)
    neighbours = Neighbours(saved.rows, saved.reserved)
    scales = neighbours.mean_similarities(neighbours) if csls else None

    def ask(vector: Tensor, without: Collection[int]) -> list[Neighbour]:
        if scales is None:
            return neighbours.nearest(vector, number, without)
        return neighbours.nearest_by_csls(vector, number, scales, without)

    found = [ask(vector, word.ids) for word, vector in zip(words, vectors, strict=True)]
    return {"words": _pieces(words), "csls": csls, "neighbours": [_in_words(some, saved) for some in found]}


def analogy(saved: SavedSide, texts: Sequence[str], number: int, *, multiply: bool) -> Answer:
    """Return what is to the third word as the second is to the first."""
    words = saved.words(texts)
    a, b, c = word_vectors(words, saved.rows)
    without = [index for word in words for index in word.ids]
    neighbours = Neighbours(saved.rows, saved.reserved)
    try:
        found = neighbours.analogy(a, b, c, number, without, multiply=multiply)
    except ValueError:
        raise UserError(f"{texts[1]} - {texts[0]} + {texts[2]} is zero, so that nothing is close to it") from None
    return {"words": _pieces(words), "multiply": multiply, "answers": _in_words(found, saved)}


def _pieces(words: Sequence[Word]) -> list[Answer]:
    return [{"word": word.text, "tokens": list(word.tokens), "note": word.explanation} for word in words]


def _in_words(found: Sequence[Neighbour], saved: SavedSide) -> list[Answer]:
    tokens = saved.side.vocabulary.tokens
    return [{"word": tokens[each.id], "id": each.id, "score": each.score} for each in found]
