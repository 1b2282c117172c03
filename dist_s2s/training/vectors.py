"""Tables that begin with word vectors from files."""

from collections.abc import Callable

from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.rows.sparse import coalesced_rows
from dist_s2s.training.events import Event, PhaseBegin
from dist_s2s.training.vector_loading import VectorLoading
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
        report = loading.read(config.embedding.project_vectors, only_words=resuming)
        if not resuming:
            loading.settle(config.embedding.uncovered_std)
            say("\n".join(f"{name} vectors: {line}" for line in (f"from {path}", *report)))
        frozen.append((table, loading.covered.to(table.weight.device)))
    return FrozenRows(frozen) if config.embedding.freeze_vectors and frozen else None


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
