"""Checks of what a table is built with."""

from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

GradReduction = Literal["mean", "sum"]
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_COMM_DTYPES = (None, torch.bfloat16, torch.float16)


def groups_of(
    process_group: dist.ProcessGroup | None, device_mesh: DeviceMesh | None
) -> tuple[dist.ProcessGroup | None, dist.ProcessGroup | None]:
    """The group that shares the rows, and the group of the ranks with the same rows; None for a group of one rank.

    Collective if neither is given: it then makes a new group of all ranks.
    Raises ValueError, on this rank alone, if it is no member of the group, or the mesh has not two dimensions.
    """
    replicate_group = None
    if device_mesh is not None:
        if process_group is not None:
            raise ValueError("give process_group or device_mesh, but not both")
        if device_mesh.ndim != 2:
            raise ValueError(f"device_mesh must have 2 dimensions, replicas and shards, but has {device_mesh.ndim}")
        replicate_group, process_group = device_mesh.get_group(0), device_mesh.get_group(1)
    elif process_group is None and dist.is_available() and dist.is_initialized():
        process_group = dist.new_group()
    return _unless_alone(process_group), _unless_alone(replicate_group)


def _unless_alone(group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    if group is None:
        return None
    if dist.get_rank(group) < 0:
        raise ValueError(f"rank {dist.get_rank()} is not a member of the table's process group")
    return group if dist.get_world_size(group) > 1 else None


def check_settings(
    num_embeddings: int,
    embedding_dim: int,
    grad_reduction: str,
    max_norm: float | None,
    init_std: float,
    comm_dtype: torch.dtype | None,
    dtype: torch.dtype,
) -> None:
    """Raises ValueError for a setting that no table can have; the ranks agree on all of them already."""
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
    """A padding_idx within [0, num_embeddings); negative ones count from the end, as in nn.Embedding."""
    if padding_idx is None:
        return None
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(f"padding_idx {padding_idx} is outside [{-num_embeddings}, {num_embeddings})")
    return padding_idx % num_embeddings
