"""The texts of errors that name an exchange."""

import torch

from dist_s2s.sharded import DistributedEmbedding


def table_text(number: int, *size: int, dtype: torch.dtype = torch.float32) -> str:
    """How an error names a table."""
    return f"table {number} ({size[0]} x {size[1]}, {dtype})"


def text_of(table: DistributedEmbedding) -> str:
    """How an error names this table."""
    return table_text(table.number, table.num_embeddings, table.embedding_dim, dtype=table.weight.dtype)


def mismatch(first: str, rank: int, other: str) -> str:
    """What all ranks raise when rank 0 is in the exchange ``first``, and ``rank`` is the first that is in another."""
    return (
        f"all ranks must take part in the same exchange, but rank 0 is in {first}, and rank {rank} in {other}; "
        "call the tables in the same order on every rank, and run backward on all or on none"
    )
