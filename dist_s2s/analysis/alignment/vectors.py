"""Words and their vectors, from a run or a file, with the rows spread over the ranks."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_s2s import UserError
from dist_s2s.analysis.rows import TableRows
from dist_s2s.analysis.words import Word
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.storage.checkpoint import read_manifest, table_of_side
from dist_s2s.storage.table_rows import load_rows
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import SubwordTokenizer
from dist_s2s.text.tokenizers.spaces import SPACE
from dist_s2s.text.tokenizers.words import JOINER
from dist_s2s.text.vectors.reading import VectorFile, Vectors
from dist_s2s.translation.runs.load import SavedRun, read_run

SIDES = ("source", "target")


@dataclass(frozen=True)
class WordVectors:
    """Words and a table of their vectors.

    Attributes:
        name: of the file or the run's side, for people.
        words: by id, the most frequent first, as files and vocabularies have them. A token has its marks.
        rows: of these ids. Rows go round robin, so that each rank has its share of the frequent words.
        reserved: ids below this one are special tokens and tags, which are no words.
        pieces: words of several subwords, by which they have been found; they come last in ``words``.
    """

    name: str
    words: list[str]
    rows: TableRows
    reserved: int = 0
    pieces: dict[str, Word] = field(default_factory=dict)
    _side: TextSide | None = None  # of a run that has subwords

    @classmethod
    def open(cls, text: str, default_side: str, limit: int, ranks: Ranks) -> "WordVectors":
        """Return the vectors that the user has named (collective).

        Args:
            text: a file of word vectors, or a run directory, which may end in `:source` or `:target`.
            default_side: of a run without that.
            limit: words to read at most, the first ones.

        Raises:
            UserError: on every rank, if there is no such thing, it is damaged, or has no words.
        """
        path, _, side = text.rpartition(":")
        if path and side in SIDES and Path(path).is_dir():  # a file may be called source
            return _of_run(Path(path), side, limit, ranks)
        if Path(text).is_dir():
            return _of_run(Path(text), default_side, limit, ranks)
        return _of_file(text, limit, ranks)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word; of tokens that differ only in their marks, that of the one which begins a word."""
        found: dict[str, int] = {}
        for index in range(self.reserved, len(self.words)):
            token = self.words[index]
            if token.startswith(SPACE) and len(token) > 1:
                found.setdefault(token.removeprefix(SPACE), index)
        for index in range(self.reserved, len(self.words)):
            token = self.words[index]
            found.setdefault(token.strip(JOINER) or token, index)
        return found

    def with_words(self, wanted: Iterable[str], ranks: Ranks) -> "WordVectors":
        """Return the same vectors and, if they are of subwords, the means of the pieces of further words (collective).

        Args:
            wanted: words, the same on every rank; one that is known, or has an unknown piece, adds nothing.
        """
        if self._side is None:
            return self
        found = dict[str, Word]()
        for text in dict.fromkeys(wanted):
            if text not in self.ids and (word := _in_pieces(text, self._side, self.rows.num_rows)) is not None:
                found[text] = word
        if not found:
            return self
        old, count = self.rows, self.rows.num_rows
        table = _make_table(count + len(found), old.dim, ranks)
        rows, weight, held = TableRows.of_table(table), table.weight.detach(), 0
        for _, block in old.blocks():  # round robin: what a rank has held, it holds at the same places
            weight[held : held + len(block)] = block
            held += len(block)
        for number, word in enumerate(found.values(), start=count):
            mean = old.fetch(torch.tensor(word.ids)).mean(0)
            if number % ranks.world_size == ranks.rank:
                weight[number // ranks.world_size] = mean
        return replace(self, words=[*self.words, *found], rows=rows, pieces=found)

    @cached_property
    def plain_words(self) -> list[str]:
        """The words by id, tokens without their marks unless another token is the same without its marks."""
        words = list(self.words)
        for word, index in self.ids.items():
            words[index] = word
        return words


def _of_run(run_dir: Path, side: str, limit: int, ranks: Ranks) -> WordVectors:
    def read() -> tuple[SavedRun, dict[str, Any]]:
        run = read_run(run_dir)
        return run, read_manifest(run.checkpoint)

    run, manifest = ranks.together(read)
    text_side = run.source if side == "source" else run.target
    vocabulary = text_side.vocabulary
    words = list(vocabulary.tokens[:limit])
    name = table_of_side(manifest, side)
    saved = manifest["tables"][name]
    table = _make_table(saved["num_embeddings"], saved["embedding_dim"], ranks)
    ranks.together(lambda: load_rows(run.checkpoint, manifest, name, table, only_weight=True))
    subwords = text_side if isinstance(text_side.tokenizer, SubwordTokenizer) else None
    rows = TableRows.of_table(table, len(words))
    return WordVectors(f"{run_dir}, {side} side", words, rows, vocabulary.num_reserved, _side=subwords)


def _in_pieces(text: str, side: TextSide, known: int) -> Word | None:
    """Return a word of subwords with ids below ``known``; None if a piece is unknown or left out."""
    ids, tokens = side.encode(text), side.vocabulary.tokens
    if not ids or min(ids) < side.vocabulary.num_reserved or max(ids) >= known:
        return None
    return Word(text, tuple(ids), tuple(tokens[index] for index in ids))


def _of_file(path: str, limit: int, ranks: Ranks) -> WordVectors:
    words, mine = ranks.together(lambda: _read_file(path, limit, ranks.rank, ranks.world_size))
    ranks.check_same(f"number of words in {path}", len(words))
    table = _make_table(len(words), mine[0].shape[1], ranks)
    weight, held = table.weight.detach(), 0
    mine.reverse()
    while mine:  # each block goes as soon as its rows are in the table
        block = mine.pop()
        weight[held : held + len(block)] = torch.from_numpy(block)
        held += len(block)
    return WordVectors(path, words, TableRows.of_table(table))


def _read_file(path: str, limit: int, rank: int, world_size: int) -> tuple[list[str], list[Vectors]]:
    """Return the words of a file, and the vectors of this rank in blocks; repeated words count once."""
    file = VectorFile(path)
    words, mine = dict[str, None](), [np.empty((0, file.dim), np.float32)]
    for block in file.blocks():
        chosen = []
        for record in file.cut(block):
            word = record.word.decode("utf-8", "replace")
            if word in words or len(words) == limit:
                continue
            if len(words) % world_size == rank:
                chosen.append(record)
            words[word] = None
        mine.append(file.parse(chosen))
        if len(words) == limit:
            break
    if not words:
        raise UserError(f"{path} has no words; is the file complete?")
    return list(words), mine


def _make_table(num_rows: int, dim: int, ranks: Ranks) -> DistributedEmbedding:
    return DistributedEmbedding(
        num_rows, dim, layout="round_robin", process_group=ranks.group, device=ranks.device, dtype=torch.float32
    )
