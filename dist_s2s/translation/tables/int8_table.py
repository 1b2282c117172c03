"""Sharded tables whose rows are int8 with a scale each, a quarter of the memory and of what travels."""

from typing import Any

import torch
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.exchange.plan import ExchangePlan
from dist_s2s.storage.quantization import from_words, words_per_row


class Int8Embedding(DistributedEmbedding):
    """A table that is only read. ``lookup`` returns its rows as words, of which ``as_numbers`` makes rows.

    Args:
        dim: numbers in a row.
        settings: as of DistributedEmbedding; without comm_dtype, in which words would be lost.
    """

    def __init__(self, num_embeddings: int, dim: int, padding_idx: int | None = None, **settings: Any) -> None:
        super().__init__(num_embeddings, words_per_row(dim), padding_idx, init_std=0.0, dtype=torch.float32, **settings)
        self.dim = dim
        self.weight.requires_grad_(False)

    def forward(self, ids: Tensor, plan: ExchangePlan | None = None) -> Tensor:
        """Return the rows of ``ids``, float32 [*ids.shape, dim] (collective)."""
        return from_words(super().forward(ids, plan), self.dim)


def as_numbers(table: DistributedEmbedding, rows: Tensor) -> Tensor:
    """Return rows [..., D] from what a lookup in a table returns, or its weight has (local)."""
    return from_words(rows, table.dim) if isinstance(table, Int8Embedding) else rows


def row_dim(table: DistributedEmbedding) -> int:
    """Return how many numbers a row of a table has."""
    return table.dim if isinstance(table, Int8Embedding) else table.embedding_dim
