"""Row-sharded embedding tables for any PyTorch model. Imports torch alone.

- embedding = nn.Embedding(num_embeddings, embedding_dim)
+ embedding = DistributedEmbedding(num_embeddings, embedding_dim)
"""

from dist_s2s.sharded.embedding import DistributedEmbedding
from dist_s2s.sharded.exchange import ExchangePlan, ExchangeStatistics
from dist_s2s.sharded.optim import RowWiseAdagrad, clip_grad_norm_
from dist_s2s.sharded.partition import RowPartition

__all__ = [
    "DistributedEmbedding",
    "ExchangePlan",
    "ExchangeStatistics",
    "RowPartition",
    "RowWiseAdagrad",
    "clip_grad_norm_",
]
