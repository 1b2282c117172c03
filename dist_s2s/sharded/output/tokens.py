"""Tokens of all ranks on every rank, and what was computed for them back on the ranks that they came from.

    agree           how many tokens I have, and my status; counts are exchanged, never assumed
    gather_tokens   everybody gets the tokens of all
    return_tokens   its dual: you get what I have computed for your tokens, as you do from every rank

Every rank of the table's group calls them in the same order, also with no token. With a single rank they communicate
nothing.
"""

import zlib
from collections.abc import Mapping, Sequence

from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard, subject_of
from dist_s2s.sharded.transport.group import AGREED_ERRORS
from dist_s2s.sharded.transport.protocol import Block, PeerRows, Subject, split_evenly


def agree(
    table: TableShard,
    kind: str,
    error: Exception | None,
    settings: Mapping[str, object],
    numbers: Sequence[int],
) -> list[list[int]]:
    """Return the ``numbers`` of each rank, by rank (collective, among replicas too, so that they stop together).

    Args:
        kind: what this is the beginning of.
        error: what is wrong on this rank; ``settings`` and ``numbers`` then do not count, but are as many as elsewhere.

    Raises:
        Exception: on every rank, the error of the first rank that has one.
        ValueError: on every rank, if ``settings`` differ between ranks.
    """
    group, subject = table.group, subject_of(kind, [table], 0)
    try:
        group.replicas.agree(subject, error)
    except AGREED_ERRORS as found:
        error = found
    checksum = zlib.crc32(repr(dict(settings)).encode())
    all_numbers = group.agree(subject, error, [checksum, *numbers])
    if len({theirs[0] for theirs in all_numbers}) > 1:
        group.check_same(settings, subject)
    return [theirs[1:] for theirs in all_numbers]


def gather_tokens(tokens: Tensor, counts: Sequence[int], table: TableShard) -> Tensor:
    """Return the tokens of all ranks, [sum of counts, ...], ordered by rank, from those of this rank, [its count, ...].

    Args:
        counts: tokens of each rank. All ranks have the same dtype and trailing dimensions.
    """
    return table.group.gather(tokens, _subject("the tokens of a loss", table), counts)


def return_tokens(results: Tensor, counts: Sequence[int], table: TableShard) -> list[Tensor]:
    """Return what each rank has computed for this rank's tokens, by rank: [tokens of this rank, D] each.

    Args:
        results: [sum(counts), D], what this rank has computed for the tokens of all ranks. With a sum over the ranks it
            is a reduce_scatter, whose parts may differ in size, as gloo's may not.
    """
    group = table.group
    mine = counts[group.rank]
    received = group.exchange(
        _subject("the results of a loss", table),
        blocks=[Block.of(results)],
        outgoing=[split_evenly(counts)],
        expected=[[PeerRows(mine, sum(counts[: group.rank]), sum(counts))] * group.size],
    )
    return list(received.blocks[0].split([mine] * group.size))


def gather_equal(tensor: Tensor, table: TableShard) -> Tensor:
    """Return the tensor of each rank, [world_size, *shape]; all know that they have the same shape and dtype."""
    counts = [1] * table.group.size
    return table.group.gather(tensor[None], _subject("a part of a loss", table), counts)


def tokens_of_replicas(num_tokens: int, table: TableShard) -> int:
    """Return the sum of the numbers of tokens of all replicas."""
    subject = _subject("the tokens of replicas", table)
    return sum(theirs for (theirs,) in table.group.replicas.agree(subject, None, [num_tokens]))


def _subject(kind: str, table: TableShard) -> Subject:
    return subject_of(kind, [table], 0)
