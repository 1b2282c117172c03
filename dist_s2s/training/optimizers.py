"""The optimizer of the tables."""

from torch.optim import Optimizer

from dist_s2s.config import Config
from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD


def make_table_optimizer(config: Config, tables: list[DistributedEmbedding]) -> Optimizer:
    """Build the row-sparse optimizer named by ``embedding.optimizer``, over the shards of all tables."""
    weights = [table.weight for table in tables]
    peak = config.embedding.learning_rate or config.training.learning_rate
    match config.embedding.optimizer:
        case "sgd":
            return SparseSGD(weights, lr=peak)
        case "adagrad":
            return SparseAdagrad(weights, lr=peak)
        case "rowwise_adagrad":
            return RowWiseAdagrad(weights, lr=peak)
        case "sparse_adam":
            return SparseAdam(weights, lr=peak)
        case "rowwise_adam":
            return RowWiseAdam(weights, lr=peak)
