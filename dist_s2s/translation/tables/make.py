"""The sharded tables of a translator, as its configuration says."""

from typing import Any

import torch

from dist_s2s import UserError
from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.vocabulary import PAD
from dist_s2s.translation.tables.int8_table import Int8Embedding

_COMM_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def parameter_dtype(config: Config) -> torch.dtype:
    """Return the dtype of all parameters; reduced precision is autocast's alone."""
    return torch.float64 if config.training.precision == "fp64" else torch.float32


def make_table(
    config: Config,
    num_rows: int,
    embedding_dim: int,
    ranks: Ranks,
    *,
    padding_idx: int | None = PAD,
    init_std: float = 1.0,
    own_size: bool = False,
    quantized: bool = False,
) -> DistributedEmbedding:
    """Build a table of ``embedding.num_embeddings`` rows, or else ``num_rows`` (collective).

    Args:
        own_size: it has ``num_rows`` whatever the others have.
        quantized: an Int8Embedding of zeros, to be loaded.

    Raises:
        UserError: on every rank, for a transport that cannot be had here.
    """
    embedding = config.embedding
    size = num_rows if own_size else embedding.num_embeddings or num_rows, embedding_dim, padding_idx
    where: dict[str, Any] = {
        "layout": embedding.layout,
        "transport": embedding.transport,
        "process_group": ranks.group,
        "device": ranks.device,
    }
    try:
        if quantized:
            return Int8Embedding(*size, **where)
        return DistributedEmbedding(
            *size,
            comm_dtype=None if embedding.comm_dtype is None else _COMM_DTYPES[embedding.comm_dtype],
            init_std=init_std,
            dtype=parameter_dtype(config),
            **where,
        )
    except ValueError as error:
        raise UserError(f"the tables cannot be built: {error}") from None
