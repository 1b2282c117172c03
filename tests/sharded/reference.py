"""What the sharded tables are measured against, written without their code."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "round_robin")
TRANSPORTS = ("collective", "shared_memory") if sys.platform == "linux" else ("collective",)


def assemble(shards: Sequence[Tensor], layout: str) -> Tensor:
    """The whole table, [V, ...], from the shards of ranks 0, 1, ..."""
    if layout == "contiguous":
        return torch.cat(list(shards))
    whole = shards[0].new_empty(sum(map(len, shards)), *shards[0].shape[1:])
    for rank, shard in enumerate(shards):
        whole[rank :: len(shards)] = shard
    return whole


def random_ids(num_rows: int, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(num_rows, shape, generator=torch.Generator().manual_seed(seed))


def random_rows(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
