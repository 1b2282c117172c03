"""TorchRec's row-wise EmbeddingCollection or EmbeddingBagCollection. Needs the environment that peers.py makes."""

# mypy: disable-error-code="import-not-found"

import torch
import torch.distributed as dist
from torch import Tensor

from common.torchrec_tables import Bags, Tables, jagged
from lookup.problem import EPS, LEARNING_RATE, Contender, Problem, Update, fill


def torchrec(update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build fused kernels, whose backward is the update. By default it averages gradients over ranks, as we do."""
    shape = torch.zeros(1, 1).expand(problem.num_embeddings, problem.embedding_dim)  # takes no memory
    kind = Bags if problem.is_pooled else Tables
    tables = kind([shape], update, fused={"learning_rate": LEARNING_RATE, "eps": EPS}, device=problem.device)
    for shard in tables.shards():
        fill(shard.tensor.detach(), shard.metadata.shard_offsets[0])

    def lookup(features: object) -> Tensor:
        found = tables.module(features).wait()["f0"]
        rows: Tensor = found if problem.is_pooled else found.values()
        return rows

    return Contender(lookup, tables.update, prepare=lambda ids: jagged([ids], bag=problem.ids_per_bag))
