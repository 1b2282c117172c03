"""Tokens of all ranks on every rank, and what was computed for them back on the ranks that they came from.

    agree           header    all_gather: how many tokens I have, and my status; counts are exchanged, never assumed
    gather_tokens   tokens    all_gather of [tokens, ...]
    return_tokens   results   all_to_all of [tokens of all ranks, ...]: you get those of your tokens, from every rank

Every rank of the table's group calls them in the same order, also with no token. With a single rank they communicate
nothing. What they cost is counted in ``table.statistics``.
"""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.agreement import check_same_on_all_ranks, raise_first, raise_together, status_of
from dist_s2s.sharded.embedding import DistributedEmbedding


def agree(
    table: DistributedEmbedding, error: Exception | None, settings: Mapping[str, object], numbers: Sequence[int]
) -> list[list[int]]:
    """The ``numbers`` of each rank, by rank (one all_gather; one more among replicas, so that they stop together).

    error: what is wrong on this rank; ``settings`` and ``numbers`` then do not count, but are as many as elsewhere.
    Raises on every rank the error of the first rank that has one, and ValueError if ``settings`` differ between ranks.
    """
    device = table.weight.device
    if table.replicate_group is not None:
        try:
            raise_together(error, table.replicate_group, device)
        except (IndexError, TypeError, ValueError) as found:
            error = found
    if table.process_group is None:
        if error is not None:
            raise error
        return [list(numbers)]
    checksum = zlib.crc32(repr(dict(settings)).encode())
    header = torch.tensor([status_of(error), checksum, *numbers], device=device)
    headers = torch.stack(all_gather(header, table)).tolist()
    raise_first([theirs[0] for theirs in headers], error, table.process_group, device)
    if len({theirs[1] for theirs in headers}) > 1:
        check_same_on_all_ranks(settings, table.process_group, device)
        raise ValueError(f"{', '.join(settings)} must be the same on every rank, but are not")  # beyond its 512 bytes
    return [theirs[2:] for theirs in headers]


def gather_tokens(tokens: Tensor, counts: Sequence[int], table: DistributedEmbedding) -> Tensor:
    """The tokens of all ranks, [sum of counts, ...], ordered by rank, from those of this rank, [its count, ...].

    counts: tokens of each rank. All ranks have the same dtype and trailing dimensions.
    """
    return table.transport.gather_rows(tokens, counts, table.statistics)


def return_tokens(results: Tensor, counts: Sequence[int], table: DistributedEmbedding) -> list[Tensor]:
    """What each rank has computed for this rank's tokens, by rank: [tokens of this rank, D] each.

    results: [sum(counts), D], what this rank has computed for the tokens of all ranks. With a sum over the ranks it
    is a reduce_scatter, whose parts may differ in size, as gloo's may not. Valid until the table's next exchange.
    """
    return table.transport.return_rows(results, counts, table.statistics)


def all_gather(tensor: Tensor, table: DistributedEmbedding) -> list[Tensor]:
    """The tensor of each rank of the table's group, by rank. All have the same shape and dtype."""
    return table.transport.gather(tensor, table.statistics)
