"""Bring the tokens of all ranks to every rank, and what was computed for them back.

    agree           I tell you how many tokens I have, and my status; counts are exchanged, never assumed
    gather_tokens   each rank gets the tokens of all ranks
    return_tokens   the dual: each rank gets what every rank has computed for its tokens

Every rank of the table's group calls them in the same order, also without tokens. On a single rank they communicate
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
    """Return the ``numbers`` of each rank, by rank (collective, also among replicas, so that they stop together).

    Args:
        table: the output table.
        kind: names what begins here, in errors.
        error: what is wrong on this rank. ``settings`` and ``numbers`` are then ignored, but must have their usual
            length.
        settings: what must be the same on every rank.
        numbers: integers that every rank is to learn.

    Raises:
        Exception: on every rank, the error of the first rank that has one.
        ValueError: on every rank, if ``settings`` differ between ranks.
    """
    group, subject = table.group, subject_of(kind, [table])
    checksum = zlib.crc32(repr(dict(settings)).encode())
    try:
        if len({theirs[0] for theirs in group.replicas.agree(subject, error, [checksum])}) > 1:
            group.replicas.check_same(settings, subject)
    except AGREED_ERRORS as found:
        error = found
    all_numbers = group.agree(subject, error, [checksum, *numbers])
    if len({theirs[0] for theirs in all_numbers}) > 1:
        group.check_same(settings, subject)
    return [theirs[1:] for theirs in all_numbers]


def gather_tokens(tokens: Tensor, counts: Sequence[int], table: TableShard) -> Tensor:
    """Return the tokens of all ranks, [sum of counts, ...], ordered by rank (collective).

    Args:
        tokens: those of this rank, [its count, ...], of the same dtype and trailing dimensions on every rank.
        counts: number of tokens of each rank.
        table: the output table.
    """
    return table.group.gather(tokens, _subject("the tokens of a loss", table), counts)


def return_tokens(results: Tensor, counts: Sequence[int], table: TableShard) -> list[Tensor]:
    """Return what each rank has computed for this rank's tokens: by rank, [tokens of this rank, D] (collective).

    Summed over the ranks, it is a reduce_scatter whose parts may differ in size, which gloo's may not.

    Args:
        results: what this rank has computed for the tokens of all ranks, [sum(counts), D].
        counts: number of tokens of each rank.
        table: the output table.
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
    """Return the tensor of each rank, [world_size, *shape]; shape and dtype are the same everywhere (collective)."""
    counts = [1] * table.group.size
    return table.group.gather(tensor[None], _subject("a part of a loss", table), counts)


def tokens_of_replicas(num_tokens: int, table: TableShard) -> int:
    """Return the number of tokens of all replicas together (collective among replicas)."""
    subject = _subject("the tokens of replicas", table)
    return sum(theirs for (theirs,) in table.group.replicas.agree(subject, None, [num_tokens]))


def _subject(kind: str, table: TableShard) -> Subject:
    return subject_of(kind, [table])
