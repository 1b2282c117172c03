"""What an estimate is asked about: a table with its batches, and the machines."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch

from dist_s2s.cost.id_traffic import IdDistribution, Traffic, expected_traffic
from dist_s2s.sharded import RowPartition
from dist_s2s.sharded.partition import Layout

OptimizerName = Literal["RowWiseAdagrad", "RowWiseAdam", "SparseAdagrad", "SparseAdam", "SparseSGD"]
Moves = Literal["shared_memory", "collective"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
TRANSPORTS: tuple[Moves, ...] = get_args(Moves)


@dataclass(frozen=True)
class Cluster:
    """Hosts of the same kind, each with as many ranks.

    ranks: of all hosts together; a multiple of hosts. cores: of each host.
    bandwidth: bytes per second that a host can send to others, and receive at the same time. latency: seconds from a
    host to another. Neither counts with one host.
    """

    ranks: int
    hosts: int
    cores: int
    bandwidth: float
    latency: float

    @property
    def ranks_per_host(self) -> int:
        """The same on all hosts."""
        return self.ranks // self.hosts

    @property
    def crowding(self) -> float:
        """How many ranks share a core, at least 1."""
        return max(1.0, self.ranks_per_host / self.cores)


@dataclass(frozen=True)
class Problem:
    """One table and what is done with it in a step. V is num_embeddings, D embedding_dim, N ids (of each rank).

    skew: see IdDistribution. comm_dtype: in which rows and gradients travel, if not in their own. moves: the transport.
    """

    num_embeddings: int
    embedding_dim: int
    ids: int
    skew: float
    layout: Layout
    moves: Moves
    optimizer: OptimizerName
    dtype: torch.dtype
    comm_dtype: torch.dtype | None
    cluster: Cluster

    @cached_property
    def partition(self) -> RowPartition:
        """Of the rows among the ranks."""
        return RowPartition(self.num_embeddings, self.cluster.ranks, self.layout)

    @cached_property
    def traffic(self) -> Traffic:
        """What ranks ask of owners."""
        return expected_traffic(IdDistribution(self.num_embeddings, self.skew), self.ids, self.partition)

    @property
    def in_place(self) -> bool:
        """Whether ranks read rows where they are, in memory that they share; a single rank has no such memory."""
        return self.moves == "shared_memory" and self.cluster.ranks > 1

    @property
    def sum_dtype(self) -> torch.dtype:
        """In which gradients are summed."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def row_wire_dtype(self) -> torch.dtype:
        """In which rows travel."""
        return self.comm_dtype or self.dtype

    @property
    def gradient_wire_dtype(self) -> torch.dtype:
        """In which gradients travel."""
        return self.comm_dtype or self.sum_dtype
