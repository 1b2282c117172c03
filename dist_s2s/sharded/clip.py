"""Clipping of gradients by their global norm, over the replicated parameters and the shards of all ranks."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.protocol import Subject

_CLIPPING = Subject("the clipping of gradients")


def clip_grad_norm_(
    dense: nn.Module | Iterable[Tensor],
    tables: Iterable[DistributedEmbedding],
    max_norm: float,
    *,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients so that their global norm is at most ``max_norm``; return the norm before (collective).

    The norm counts each replicated parameter and each shard of a table once: sqrt(dense norm² + Σ shard norm²). One
    exchange for each group of ranks among the tables. All ranks get the same number, a float64 scalar on the CPU, so
    that replicas stay equal. If any gradient on any rank is not finite, the norm is nan on every rank and the gradients
    stay as they were; then all ranks can skip the step together.

    Args:
        dense: the replicated parameters, or a module that has them, with gradients that are the same on every rank, as
            DistributedDataParallel leaves them. Weights of ``tables`` among them are not counted again.
        tables: the same on every rank. Their gradients may be sparse or dense.
        max_norm: may be infinity, to measure only.
        error_if_nonfinite: for a gradient that is not finite raise the same RuntimeError on every rank, which names the
            first rank that has one, instead of returning nan.

    Raises:
        ValueError: for a negative max_norm.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must not be negative, but is {max_norm}")
    tables = list(dict.fromkeys(tables))
    dense_gradients = _dense_gradients(dense, tables)
    table_gradients = [_values(table) for table in tables]
    norm, cause = _global_norm(dense_gradients, tables, table_gradients)
    if cause is not None and error_if_nonfinite:
        raise RuntimeError(
            f"{cause} is not finite; the gradients were left as they are: skip this step on every rank, or lower the "
            "learning rate"
        )
    if max_norm < norm < math.inf:
        for gradient in dense_gradients + table_gradients:
            gradient.mul_(max_norm / norm)
    return torch.tensor(norm, dtype=torch.float64)


def _dense_gradients(dense: nn.Module | Iterable[Tensor], tables: list[DistributedEmbedding]) -> list[Tensor]:
    parameters = dense.parameters() if isinstance(dense, nn.Module) else dense
    weights = {table.weight for table in tables}
    return [parameter.grad for parameter in parameters if parameter.grad is not None and parameter not in weights]


def _values(table: DistributedEmbedding) -> Tensor:
    """Return the numbers of the gradient themselves, [..., D]; no rows if the table has no gradient."""
    gradient = table.weight.grad
    if gradient is None:
        return table.weight.new_empty(0, table.embedding_dim)
    if not gradient.is_sparse:
        return gradient
    # Rows that occur twice must be added before they are squared. Without duplicates this returns the gradient itself.
    table.weight.grad = gradient.coalesce()
    return table.weight.grad.values()


def _global_norm(
    dense_gradients: list[Tensor], tables: list[DistributedEmbedding], table_gradients: list[Tensor]
) -> tuple[float, str | None]:
    """Return the norm and, if it is not finite (then it is nan), the first rank's reason: the same on all ranks."""
    dense_norm = float(nn.utils.get_total_norm(dense_gradients)) if dense_gradients else 0.0
    total = dense_norm * dense_norm
    squares: dict[RankGroup, float] = {}
    for table, gradient in zip(tables, table_gradients, strict=True):
        shard_norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        squares[table.group] = squares.get(table.group, 0.0) + shard_norm * shard_norm

    # The first rank, so far as this one knows, of which a table's or a dense gradient is not finite. Each rank tells
    # what it knows along with its square. Replicas have the same squares, but know of other ranks.
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    culprits = [math.inf if math.isfinite(square) else rank for square in (sum(squares.values()), total)]
    replicas = dict.fromkeys(table.group.replicas for table in tables if table.group.replicas.size > 1)
    for group in [*squares, *replicas]:
        reports = group.agree_on_floats(_CLIPPING, [squares.get(group, 0.0), *culprits])
        total += sum(square for square, *_ in reports)  # in the order of ranks: the same bits on each
        culprits = [min(known) for known in list(zip(*reports, strict=True))[1:]]

    of_table, of_dense = culprits
    first = min(culprits)
    if first == math.inf:
        return math.sqrt(total), None
    return math.nan, f"the gradient of a {'table' if of_table <= of_dense else 'dense parameter'} on rank {first:.0f}"
