"""The question that an estimate answers: a table with its batches, and the machines."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch

from dist_s2s import UserError
from dist_s2s.cost.id_traffic import Floats, expected_rows
from dist_s2s.sharded import RowPartition

Layout = Literal["contiguous", "round_robin"]
TransportName = Literal["shared_memory", "collective"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)
# Tensors of each optimizer's state: of shape [rows, D], and of shape [rows].
OPTIMIZERS = {
    "RowWiseAdagrad": (0, 1),
    "RowWiseAdam": (1, 1),
    "SparseAdagrad": (1, 0),
    "SparseAdam": (2, 0),
    "SparseSGD": (0, 0),
}


@dataclass(frozen=True)
class Cluster:
    """Hosts of the same kind, with ``cores`` and equally many ranks each.

    A host can send ``bandwidth`` bytes per second to others, and receive as many; a message takes ``latency`` seconds.
    """

    ranks: int
    hosts: int
    cores: int
    bandwidth: float = 3.125e9
    latency: float = 50e-6

    def __post_init__(self) -> None:
        if self.ranks % self.hosts:
            raise UserError(
                "every host must have equally many ranks, "
                f"but {self.ranks} ranks are not a multiple of {self.hosts} hosts"
            )
        if not 0 < self.bandwidth < math.inf:
            raise UserError(f"bandwidth must be more than 0 bytes per second, but is {self.bandwidth:g}")
        if not 0 <= self.latency < math.inf:
            raise UserError(f"latency must be at least 0 seconds, but is {self.latency:g}")

    @property
    def crowding(self) -> float:
        """The number of ranks that share a core, at least 1."""
        return max(1.0, self.ranks / self.hosts / self.cores)


@dataclass(frozen=True)
class Problem:
    """One table of ``num_embeddings`` rows, of which each rank looks up ``ids`` in a step, drawn by IdDistribution.

    Rows and gradients travel in ``comm_dtype``, by default in their own dtype. If ``averaged``, a MovingAverage of the
    rows is kept.
    """

    num_embeddings: int
    embedding_dim: int
    ids: int
    skew: float
    cluster: Cluster
    layout: Layout = "round_robin"
    transport: TransportName = "collective"
    optimizer: str = "RowWiseAdagrad"
    dtype: torch.dtype = torch.float32
    comm_dtype: torch.dtype | None = None
    averaged: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.skew < math.inf:
            raise UserError(f"skew must be at least 0 and finite, but is {self.skew:g}")
        if self.averaged and self.dtype.itemsize < torch.float32.itemsize:
            raise UserError(f"an average needs rows in float32 or float64, but they are {self.dtype}")
        if self.transport == "shared_memory" and self.cluster.hosts > 1:
            raise UserError(
                f"transport shared_memory is not possible: ranks on {self.cluster.hosts} hosts do not share memory; "
                "use auto or collective"
            )

    @property
    def partition(self) -> RowPartition:
        """The assignment of rows to owners."""
        return RowPartition(self.num_embeddings, self.cluster.ranks, self.layout)

    @cached_property
    def asked(self) -> Floats:
        """Rows that one rank is expected to ask of each owner, [W]; their sum is its number of distinct ids."""
        return expected_rows(self.skew, self.ids, self.partition)

    @cached_property
    def requests(self) -> Floats:
        """Rows that all ranks ask of each owner, [W]; a row counts once for each rank that asks for it."""
        return self.asked * self.cluster.ranks

    @cached_property
    def touched(self) -> Floats:
        """Distinct rows that all ranks ask of each owner, [W]."""
        return expected_rows(self.skew, self.ids * self.cluster.ranks, self.partition)

    @property
    def in_place(self) -> bool:
        """True if ranks read each other's rows in place, in shared memory."""
        return self.transport == "shared_memory" and self.cluster.ranks > 1

    @property
    def sum_dtype(self) -> torch.dtype:
        """The dtype in which gradients are summed and optimizers keep their state."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def sent_gradient_bytes(self) -> int:
        """Bytes of a row's gradient on its way to the owner."""
        return self.embedding_dim * (self.comm_dtype or self.sum_dtype).itemsize
