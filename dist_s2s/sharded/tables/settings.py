"""Checks of the settings that a table is built with."""

from typing import Literal, get_args

import torch

GradReduction = Literal["mean", "sum"]
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_COMM_DTYPES = (None, torch.bfloat16, torch.float16)


def check_settings(
    num_embeddings: int,
    embedding_dim: int,
    grad_reduction: str,
    max_norm: float | None,
    init_std: float,
    comm_dtype: torch.dtype | None,
    dtype: torch.dtype,
) -> None:
    """Raise ValueError for an impossible setting; all ranks know by now that they have the same settings."""
    if num_embeddings < 1 or embedding_dim < 1:
        raise ValueError(
            f"num_embeddings and embedding_dim must be positive, but are {num_embeddings} and {embedding_dim}"
        )
    if grad_reduction not in get_args(GradReduction):
        raise ValueError(f"grad_reduction must be mean or sum, but is {grad_reduction!r}")
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm must be positive, but is {max_norm}")
    if not init_std >= 0:
        raise ValueError(f"init_std must not be negative, but is {init_std}")
    if comm_dtype not in _COMM_DTYPES:
        raise ValueError(f"comm_dtype must be one of {', '.join(map(str, _COMM_DTYPES))}, but is {comm_dtype}")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _DTYPES))}, but is {dtype}")


def checked_padding_idx(padding_idx: int | None, num_embeddings: int) -> int | None:
    """Return padding_idx within [0, num_embeddings); a negative one counts from the end, as in nn.Embedding.

    Raises:
        ValueError: if it is out of range.
    """
    if padding_idx is None:
        return None
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(f"padding_idx {padding_idx} is outside [{-num_embeddings}, {num_embeddings})")
    return padding_idx % num_embeddings
