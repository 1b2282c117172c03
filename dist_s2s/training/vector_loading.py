"""A file of word vectors on its way into a sharded table.

Protocol. Every rank reads the file, block by block, and all take turns: in a round each cuts one block of the next W,
in the order of the ranks, and matches its words with the vocabulary. Every rank hears of all matches of the round
(all_gather), so that all agree which of them count. Each then turns the vectors of its block that count into numbers,
and sends them to the owners of their rows (all_to_all). A rank without a block takes part with nothing; the round in
which no rank has one is the last. An error of one rank is raised on all before anything of that round is applied.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dist_s2s import UserError, counted
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.side import TextSide
from dist_s2s.text.vectors.matching import Coverage, Matcher, Matches
from dist_s2s.text.vectors.reading import Block, Record, VectorFile


class VectorLoading:
    """One file on its way into one table. The methods are collective.

    Attributes:
        covered: which of the local rows the file has, bool [shard rows], on the CPU.
    """

    def __init__(self, path: str, what: str, side: TextSide, table: DistributedEmbedding, ranks: Ranks) -> None:
        self._path, self._what, self._table, self._ranks = path, what, table, ranks
        self._tokens = side.vocabulary.tokens
        self.covered = torch.zeros(len(table.weight), dtype=torch.bool)
        self._rows = torch.empty(0)

    def read(self, project: bool, only_words: bool) -> list[str]:
        """Read the rows; return the report of what there is of the vocabulary, a line for each thing to know."""
        file = self._ranks.together(lambda: VectorFile(self._path))
        self._ranks.check_same(f"form of {self._path}", f"{file.form}, {file.dim} numbers a word")
        dim = self._table.embedding_dim
        if file.dim != dim and not project:
            raise UserError(
                f"the vectors of {self._path} have {file.dim} numbers, but model.embedding_dim is {dim}; set it to "
                f"{file.dim}, or embedding.project_vectors to true"
            )
        if not only_words:
            self._rows = torch.zeros(len(self._table.weight), file.dim)
        coverage = self._read(file, only_words)
        if not coverage.num_found:
            raise UserError(
                f"none of {counted(coverage.num_words, 'word')} of {self._path} is a token of the {self._what}; is the "
                "file for another language, or another tokenizer?"
            )
        return coverage.lines(file.place)

    def _read(self, file: VectorFile, only_words: bool) -> Coverage:
        coverage = Coverage(self._tokens)
        matcher = self._ranks.together(lambda: Matcher(self._tokens))
        turns = islice(file.blocks(), self._ranks.rank, None, self._ranks.world_size)
        while True:
            block, records, mine = self._ranks.together(lambda: _match_next(turns, file, matcher))
            heard = self._ranks.gather_uneven(_message(block, records, mine))
            if not any(bool(message[0]) for message in heard):
                return coverage
            coverage.num_words += sum(int(message[1]) for message in heard)
            matches = [message[2:].view(3, -1) for message in heard]
            counts = coverage.take(Matches(*torch.cat(matches, dim=1).numpy()))
            self._place(file, records, mine, matches, torch.from_numpy(counts), only_words)

    def _place(
        self,
        file: VectorFile,
        records: list[Record],
        mine: Matches,
        matches: list[Tensor],
        counts: Tensor,
        only_words: bool,
    ) -> None:
        """Send the vectors of this rank's matches that count to their owners, and take those of its rows.

        Args:
            matches: those of each rank, int64 [3, any count].
            counts: which of all of them count, bool [sum of the counts].
        """
        ranks, partition, me = self._ranks, self._table.partition, self._table.rank
        sizes = [part.shape[1] for part in matches]
        senders = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[counts]
        positions = partition.positions(torch.cat(matches, dim=1)[1][counts])
        owners = torch.bucketize(positions, partition.offsets, right=True) - 1
        places = positions[owners == me] - partition.offset(me)
        self.covered[places] = True
        if only_words:
            return
        chosen = torch.from_numpy(mine.words)[counts.split(sizes)[ranks.rank]]
        order = torch.argsort(owners[senders == ranks.rank], stable=True)
        vectors = ranks.together(lambda: file.parse([records[place] for place in chosen[order].tolist()]))
        self._rows[places] = ranks.exchange(
            torch.from_numpy(vectors),
            torch.bincount(owners[senders == ranks.rank], minlength=ranks.world_size).tolist(),
            torch.bincount(senders[owners == me], minlength=ranks.world_size).tolist(),
        )

    @torch.no_grad()
    def settle(self, uncovered_std: float | None) -> None:
        """Give the table its rows, and the uncovered ones a scale that fits."""
        table, rows = self._table, self._rows
        if rows.shape[1] != table.embedding_dim:
            rows = self._project(rows)
        squares, count = self._ranks.sum(
            [float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2, float(self.covered.sum())]
        )
        std = (squares / count / rows.shape[1]) ** 0.5 if uncovered_std is None else uncovered_std
        weight, covered = table.weight.detach(), self.covered.to(table.weight.device)
        weight.mul_(torch.where(covered, 1.0, std / table.init_std)[:, None])  # the padding row stays zero
        weight[covered] = rows.to(weight)[covered]
        self._rows = torch.empty(0)

    def _project(self, rows: Tensor) -> Tensor:
        """Return the rows in the table's dimension.

        A larger dimension loses the least of the covered rows' squares (principal components, not centred, so that
        angles stay); a smaller one is filled up with zeros.
        """
        dim = self._table.embedding_dim
        if rows.shape[1] < dim:
            return torch.nn.functional.pad(rows, (0, dim - rows.shape[1]))
        products = self._ranks.sum((rows.double().t() @ rows.double()).flatten().tolist())
        _, vectors = torch.linalg.eigh(torch.tensor(products, dtype=torch.float64).view(rows.shape[1], -1))
        components = vectors.flip(1)[:, :dim] if self._ranks.is_first else torch.zeros(rows.shape[1], dim)
        shared = self._ranks.sum(components.flatten().tolist())  # processors may differ in signs
        return (rows.double() @ torch.tensor(shared, dtype=torch.float64).view(-1, dim)).float()


def _match_next(turns: Iterator[Block], file: VectorFile, matcher: Matcher) -> tuple[bool, list[Record], Matches]:
    """Return whether there is a block for this rank, its words, and which tokens they are."""
    block = next(turns, None)
    records = [] if block is None else file.cut(block)
    return block is not None, records, matcher.match(record.word for record in records)


def _message(has_block: bool, records: list[Record], matches: Matches) -> Tensor:
    """Return what the other ranks hear: whether there is a block, how many words it has, and what they match.

    int64 [2 + 3 · matches]; words are told by the numbers of their records.
    """
    numbers = np.array([record.number for record in records], np.int64)[matches.words]
    head = np.array([has_block, len(records)], np.int64)
    return torch.from_numpy(np.concatenate((head, numbers, matches.ids, matches.kinds)))
