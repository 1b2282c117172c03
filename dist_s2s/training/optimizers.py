"""The optimizer of the tables."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from dist_s2s.config import Config
from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD


def make_table_optimizer(config: Config, tables: Mapping[str, DistributedEmbedding]) -> Optimizer:
    """Build the row-sparse optimizer that ``embedding.optimizer`` names, over all tables' shards in their order."""
    groups: list[dict[str, Any]] = [
        {"params": [table.weight], "lr": _learning_rate(config, name)} for name, table in tables.items()
    ]
    match config.embedding.optimizer:
        case "sgd":
            return SparseSGD(groups)
        case "adagrad":
            return SparseAdagrad(groups)
        case "rowwise_adagrad":
            return RowWiseAdagrad(groups)
        case "sparse_adam":
            return SparseAdam(groups)
        case "rowwise_adam":
            return RowWiseAdam(groups)


def _learning_rate(config: Config, name: str) -> float:
    """Return the peak rate of a table, by its name in checkpoints."""
    vectors = {"source_table": config.data.source_vectors, "target_table": config.data.target_vectors}.get(name)
    of_vectors = None if vectors is None else config.embedding.vectors_learning_rate
    return of_vectors or config.embedding.learning_rate or config.training.learning_rate
