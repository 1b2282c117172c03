"""Clipping of gradients by their global norm or by value, over the replicated parameters and the shards of all ranks.

Both take one exchange for each group of ranks among the tables, and tell all ranks the same: what was measured, or that
some gradient on some rank is not finite.
"""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.guarded_weight import ShardWeight
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
        ValueError: for a negative max_norm, and if ``dense`` holds the weight of a table that is not in ``tables``.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must not be negative, but is {max_norm}")
    gradients = _Gradients(dense, tables)
    norms = gradients.norms(2, error_if_nonfinite)
    norm = math.nan if norms is None else math.hypot(*norms)
    if max_norm < norm < math.inf:
        for gradient in gradients.values:
            gradient.mul_(max_norm / norm)
    return torch.tensor(norm, dtype=torch.float64)


def clip_grad_value_(
    dense: nn.Module | Iterable[Tensor],
    tables: Iterable[DistributedEmbedding],
    clip_value: float,
    *,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Clamp all gradients to ±``clip_value``; return the largest magnitude before (collective).

    As with ``clip_grad_norm_`` all ranks get the same number, a float64 scalar on the CPU. If any gradient on any rank
    is not finite, it is nan on every rank and the gradients stay as they were; torch's function would turn infinity
    into ``clip_value``, and leave nan.

    Args:
        dense, tables, error_if_nonfinite: as of ``clip_grad_norm_``.
        clip_value: may be infinity, to measure only.

    Raises:
        ValueError: for a negative clip_value, and if ``dense`` holds the weight of a table that is not in ``tables``.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_value must not be negative, but is {clip_value}")
    gradients = _Gradients(dense, tables)
    magnitudes = gradients.norms(math.inf, error_if_nonfinite)
    largest = math.nan if magnitudes is None else max(magnitudes)
    if clip_value < largest:
        for gradient in gradients.values:
            gradient.clamp_(-clip_value, clip_value)
    return torch.tensor(largest, dtype=torch.float64)


class _Gradients:
    """The gradients of replicated parameters and of this rank's shards."""

    def __init__(self, dense: nn.Module | Iterable[Tensor], tables: Iterable[DistributedEmbedding]) -> None:
        self._tables = list({id(table.weight): table for table in tables}.values())  # two may share one weight
        self._dense = _dense_gradients(dense, self._tables)
        self._of_tables = [_values(table) for table in self._tables]

    @property
    def values(self) -> list[Tensor]:
        """The numbers of all of them, to be changed in place."""
        return self._dense + self._of_tables

    def norms(self, order: float, error_if_nonfinite: bool) -> list[float] | None:
        """Return the norm of the dense gradients, then that of each group and rank: the same on all (collective).

        None if one of them is not finite, or an error that names the first rank's reason.
        """
        own: dict[RankGroup, list[Tensor]] = {}
        for table, gradient in zip(self._tables, self._of_tables, strict=True):
            own.setdefault(table.group, []).append(gradient)
        dense = float(nn.utils.get_total_norm(self._dense, order)) if self._dense else 0.0
        shards = {group: _norm_of_shards(mine, order) for group, mine in own.items()}

        # The first rank, so far as this one knows, of which a table's or a dense gradient is not finite. Each rank
        # tells what it knows along with its norm. Replicas have the same norms, but know of other ranks.
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        culprits = [math.inf if math.isfinite(total) else rank for total in (sum(shards.values()), dense)]
        replicas = dict.fromkeys(table.group.replicas for table in self._tables if table.group.replicas.size > 1)
        norms = [dense]
        for group in [*shards, *replicas]:
            reports = group.agree_on_floats(_CLIPPING, [shards.get(group, 0.0), *culprits])
            norms += [report[0] for report in reports]  # in the order of ranks: sums have the same bits on each
            culprits = [min(known) for known in list(zip(*reports, strict=True))[1:]]

        of_table, of_dense = culprits
        first = min(culprits)
        if first == math.inf:
            return norms
        if error_if_nonfinite:
            raise RuntimeError(
                f"the gradient of a {'table' if of_table <= of_dense else 'dense parameter'} on rank {first:.0f} is "
                "not finite; the gradients were left as they were: skip this step on every rank, or lower the "
                "learning rate"
            )
        return None


def _dense_gradients(dense: nn.Module | Iterable[Tensor], tables: list[DistributedEmbedding]) -> list[Tensor]:
    weights = {table.weight for table in tables}
    parameters = [p for p in (dense.parameters() if isinstance(dense, nn.Module) else dense) if p not in weights]
    if any(isinstance(parameter, ShardWeight) for parameter in parameters):
        raise ValueError(
            "dense holds the weight of a table that is not in tables, and would be taken for a replicated parameter: "
            "pass all tables of the model"
        )
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _values(table: DistributedEmbedding) -> Tensor:
    """Return the numbers of the gradient themselves, [..., D]; no rows if the table has no gradient."""
    gradient = table.weight.grad
    if gradient is None:
        return table.weight.new_empty(0, table.embedding_dim)
    if not gradient.is_sparse:
        return gradient
    # Rows that occur twice must be added before they are squared. Without duplicates this returns the gradient itself.
    coalesced = table.weight.grad = gradient.coalesce()
    return coalesced.values()


def _norm_of_shards(gradients: list[Tensor], order: float) -> float:
    norms = [
        torch.linalg.vector_norm(gradient, order, dtype=torch.float64) for gradient in gradients if gradient.numel()
    ]
    return float(torch.linalg.vector_norm(torch.stack(norms), order)) if norms else 0.0
