"""Tables that begin with word vectors from files.

Every rank reads the whole file, but turns only the vectors of its own rows into numbers: which words are covered is
known to all without an exchange.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.rows.sparse import coalesced_rows
from dist_s2s.text.side import TextSide
from dist_s2s.text.vectors.matching import Coverage, Matcher
from dist_s2s.text.vectors.reading import VectorFile
from dist_s2s.training.events import Event, PhaseBegin
from dist_s2s.translation.translator import Translator


class FrozenRows:
    """A listener that leaves the gradients of some rows out of each update.

    Args:
        rows: tables, each with which of its local rows they are, bool [shard rows].
    """

    def __init__(self, rows: list[tuple[DistributedEmbedding, Tensor]]) -> None:
        self._rows = rows

    def __call__(self, event: Event) -> None:
        """Remove the gradients after backward, before they are measured for clipping (local)."""
        if isinstance(event, PhaseBegin) and event.phase == "clip":
            for table, frozen in self._rows:
                _remove_gradients(table, frozen)


def read_vectors(
    config: Config, translator: Translator, say: Callable[[str], None], *, resuming: bool
) -> FrozenRows | None:
    """Put the vectors of ``data.source_vectors`` and ``data.target_vectors`` into the tables (collective).

    Args:
        say: shows the user how much of a vocabulary a file covers.
        resuming: the tables have their rows already; only find out which of them are to stay as they are.

    Returns:
        The listener for the rows that stay as they are, if ``embedding.freeze_vectors``.

    Raises:
        UserError: on every rank, for a file that cannot be read, covers nothing, or has another dimension.
    """
    data, frozen = config.data, []
    for name, path, side, table in (
        ("source", data.source_vectors, translator.source, translator.source_table),
        ("target", data.target_vectors, translator.target, translator.target_table),
    ):
        if path is None or (resuming and not config.embedding.freeze_vectors):
            continue
        loading = VectorLoading(path, f"{name} vocabulary", side, table, translator.ranks)
        coverage = loading.read(config.embedding.project_vectors, only_words=resuming)
        if not resuming:
            loading.settle(config.embedding.uncovered_std)
            say("\n".join(f"{name} vectors: {line}" for line in (f"from {path}", *coverage.lines())))
        frozen.append((table, loading.covered.to(table.weight.device)))
    return FrozenRows(frozen) if config.embedding.freeze_vectors and frozen else None


class VectorLoading:
    """One file on its way into one table. The methods are collective.

    Attributes:
        covered: which of the local rows the file has, bool [shard rows], on the CPU.
    """

    def __init__(self, path: str, what: str, side: TextSide, table: DistributedEmbedding, ranks: Ranks) -> None:
        self._path, self._what, self._side, self._table, self._ranks = path, what, side, table, ranks
        self.covered = torch.zeros(len(table.weight), dtype=torch.bool)
        self._rows = torch.empty(0)

    def read(self, project: bool, only_words: bool) -> Coverage:
        """Read the rows; return what there is of the vocabulary."""
        file = self._ranks.together(lambda: VectorFile(self._path))
        dim = self._table.embedding_dim
        if file.dim != dim and not project:
            raise UserError(
                f"the vectors of {self._path} have {file.dim} numbers, but model.embedding_dim is {dim}; set it to "
                f"{file.dim}, or embedding.project_vectors to true"
            )
        if not only_words:
            self._rows = torch.zeros(len(self._table.weight), file.dim)
        return self._ranks.together(lambda: self._read(file, only_words))

    def _read(self, file: VectorFile, only_words: bool) -> Coverage:
        tokens, partition, rank = self._side.vocabulary.tokens, self._table.partition, self._table.rank
        places = (partition.positions(torch.arange(len(tokens))) - partition.offset(rank)).tolist()
        matcher, rows, covered = Matcher(tokens), self._rows.numpy(), self.covered.numpy()
        for record in file.records():
            mine = [
                place
                for index in matcher.match(record.word, record.place)
                if 0 <= (place := places[index]) < len(covered)
            ]
            if mine:
                covered[mine] = True
                if not only_words:
                    rows[mine] = file.parse(record)
        coverage = matcher.end()
        if not coverage.found:
            raise UserError(
                f"none of the {coverage.num_words:,} words of {self._path} is a token of the {self._what}; is the file "
                "for another language, or another tokenizer?"
            )
        return coverage

    @torch.no_grad()
    def settle(self, uncovered_std: float | None) -> None:
        """Give the table its rows, and the uncovered ones a scale that fits."""
        table, rows = self._table, self._rows
        if rows.shape[1] != table.embedding_dim:
            rows = self._project(rows)
        squares, count = self._ranks.sum([float(rows.double().square().sum()), float(self.covered.sum())])
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


def _remove_gradients(table: DistributedEmbedding, frozen: Tensor) -> None:
    gradient = table.weight.grad
    if gradient is None:
        return
    if not gradient.is_sparse:
        gradient[frozen] = 0
        return
    indices, values = gradient.indices()[0], gradient.values()
    kept = ~frozen[indices]
    if not bool(kept.all()):
        table.weight.grad = coalesced_rows(indices[kept], values[kept], gradient.shape)
