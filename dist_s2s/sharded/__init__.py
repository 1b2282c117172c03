"""Row-sharded embedding tables for any PyTorch model. Needs torch and numpy alone.

- embedding = nn.Embedding(num_embeddings, embedding_dim)
+ embedding = DistributedEmbedding(num_embeddings, embedding_dim)
"""

from dist_s2s.sharded.clip import clip_grad_norm_, clip_grad_value_
from dist_s2s.sharded.companions.checkpoint_state import CheckpointState
from dist_s2s.sharded.companions.gathering import gather_state
from dist_s2s.sharded.companions.loading import load_state
from dist_s2s.sharded.companions.scaler import GradScaler
from dist_s2s.sharded.companions.uneven import uneven
from dist_s2s.sharded.companions.wrapping import exclude_sharded
from dist_s2s.sharded.exchange.plan import ExchangePlan
from dist_s2s.sharded.optim import RowWiseAdagrad, RowWiseAdam, SparseAdagrad, SparseAdam, SparseSGD
from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.output.sampled_softmax import SampledIds, SampledSoftmaxLoss
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.distributed_rows import DistributedRows
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.embedding_bag import DistributedEmbeddingBag
from dist_s2s.sharded.tables.lookahead import Lookahead
from dist_s2s.sharded.tables.lookup import lookup, make_plan
from dist_s2s.sharded.tables.pooled import lookup_bags
from dist_s2s.sharded.transport.protocol import ExchangeStatistics

__all__ = [
    "CheckpointState",
    "DistributedEmbedding",
    "DistributedEmbeddingBag",
    "DistributedRows",
    "ExchangePlan",
    "ExchangeStatistics",
    "GradScaler",
    "Lookahead",
    "RowPartition",
    "RowWiseAdagrad",
    "RowWiseAdam",
    "SampledIds",
    "SampledSoftmaxLoss",
    "SparseAdagrad",
    "SparseAdam",
    "SparseSGD",
    "VocabParallelCrossEntropy",
    "clip_grad_norm_",
    "clip_grad_value_",
    "exclude_sharded",
    "gather_state",
    "load_state",
    "lookup",
    "lookup_bags",
    "make_plan",
    "uneven",
]
