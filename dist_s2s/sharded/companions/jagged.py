"""TorchRec's KeyedJaggedTensor as input of pooled tables. Needs no torchrec: only what such a tensor can do is used."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from dist_s2s.sharded.tables.bag_input import BagTable
from dist_s2s.sharded.tables.pooled import lookup_bags


class JaggedTensor(Protocol):
    """Bags of one feature, as torchrec.JaggedTensor has them."""

    def values(self) -> Tensor:
        """Return the ids of all bags, one bag after the other."""

    def lengths(self) -> Tensor:
        """Return how many ids each bag has."""

    def weights_or_none(self) -> Tensor | None:
        """Return the weights of the ids, if they have any."""


class KeyedJaggedTensor(Protocol):
    """Bags of several features by name, as torchrec.KeyedJaggedTensor has them."""

    def to_dict(self) -> dict[str, JaggedTensor]:
        """Return the bags of each feature."""


def lookup_jagged(tables: Mapping[str, BagTable], features: KeyedJaggedTensor) -> dict[str, Tensor]:
    """Return the pooled bags of each feature, [bags, embedding_dim], in one exchange (collective, as its backward).

        tables = {"user": users, "item": items, "last_item": items}
        rows = lookup_jagged(tables, features)
        network(torch.cat([rows["user"], rows["item"], rows["last_item"]], dim=1))

    Args:
        tables: for each feature its table, in the same order on every rank. Features may share one.
        features: bags of at least these features; others are left alone. Its weights, if it has any, are
            per_sample_weights.

    Raises:
        ValueError: on every rank, if ``features`` on one rank lack a feature.
        IndexError, TypeError, ValueError, RuntimeError: on every rank, as ``lookup_bags``.
    """
    if not tables:
        return {}
    bags: dict[str, JaggedTensor] = {}
    error: Exception | None = None
    rank = next(iter(tables.values())).group.rank
    try:
        bags = features.to_dict()
    except AttributeError:
        error = TypeError(f"features on rank {rank} must be a KeyedJaggedTensor, but are a {type(features).__name__}")
    missing = [name for name in tables if name not in bags]
    if missing:
        error = error or ValueError(f"features on rank {rank} lack {missing[0]!r}, for which there is a table")
        bags = dict.fromkeys(tables, _NoBags())
    inputs = [_input(table, bags[name]) for name, table in tables.items()]
    return dict(zip(tables, lookup_bags(list(tables.values()), inputs, error), strict=True))


class _NoBags:
    """Stands in for a feature that is not there, until all ranks have learnt of it."""

    def values(self) -> Tensor:
        return torch.empty(0, dtype=torch.int64)

    lengths = values

    def weights_or_none(self) -> None:
        return None


def _input(table: BagTable, bags: JaggedTensor) -> tuple[Tensor, Tensor, Tensor | None]:
    lengths = bags.lengths().long()
    ends = lengths.cumsum(0)
    offsets = lengths.new_zeros(len(lengths) + 1)
    offsets[1:] = ends
    return bags.values(), offsets if table.include_last_offset else offsets[:-1], bags.weights_or_none()
