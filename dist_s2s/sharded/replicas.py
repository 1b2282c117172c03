"""Sums of sparse gradients over the ranks that hold the same shard (hybrid sharding)."""

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import gather, raise_first, status_of


def sum_over_replicas(
    rows: Tensor, values: Tensor, frequencies: Tensor | None, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The union of all replicas' rows and the sums of their values, bitwise the same on each of them.

    rows: int64 [M], distinct; values: [M, D]; frequencies: int64 [M] or None. M may differ between replicas. Three
    all_gathers, of the counts, the rows with their frequencies, and the values, padded to the largest M.
    Raises the error of a replica that is in trouble, see agree_on_counts.
    """
    counts = agree_on_counts(len(rows), None, group, rows.device)
    most = max(counts)
    columns = [rows] if frequencies is None else [rows, frequencies]
    all_columns = _gather_padded(torch.stack(columns, dim=1), counts, most, group)
    all_values = _gather_padded(values, counts, most, group)
    union, places = torch.unique(torch.cat([block[:, 0] for block in all_columns]), return_inverse=True)
    total = values.new_zeros(len(union), values.shape[1])
    total_frequencies = None if frequencies is None else frequencies.new_zeros(len(union))
    # One replica after the other: its rows are distinct, so that the order of additions is the same on any device.
    for replica, mine in enumerate(places.split(counts)):
        total.index_add_(0, mine, all_values[replica])
        if total_frequencies is not None:
            total_frequencies.index_add_(0, mine, all_columns[replica][:, 1])
    return union, total, total_frequencies


def agree_on_counts(count: int, error: Exception | None, group: dist.ProcessGroup, device: torch.device) -> list[int]:
    """How many rows each replica has; raises the first one's error on all if any is in trouble (one all_gather)."""
    headers = torch.stack(gather(torch.tensor([count, status_of(error)], device=device), group)).tolist()
    raise_first([status for _, status in headers], error, group, device)
    return [theirs for theirs, _ in headers]


def _gather_padded(block: Tensor, counts: list[int], most: int, group: dist.ProcessGroup) -> list[Tensor]:
    padded = block.new_zeros(most, block.shape[1])
    padded[: len(block)] = block
    return [theirs[:count] for theirs, count in zip(gather(padded, group), counts, strict=True)]
