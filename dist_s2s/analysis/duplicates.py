"""Rows that are equal to others, bit by bit, wherever these are."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dist_s2s.analysis.rows import TableRows, places_of
from dist_s2s.sharded.transport.protocol import Block, PeerRows, Subject, split_evenly

_AT_A_TIME = 1 << 14  # rows to compare with, which all ranks hold
_MEETING = Subject("the meeting of rows' hashes")


@dataclass(frozen=True)
class Duplicates:
    """Rows that are equal to a row with a lower id.

    Attributes:
        rows: how many.
        pairs: the first of them, as (id, lowest id of an equal row).
    """

    rows: int
    pairs: list[tuple[int, int]]


def hash_rows(rows: Tensor) -> Tensor:
    """Return a hash of the bytes of each row, int64 [N]: a sum of products with odd numbers modulo 2^64.

    Args:
        rows: on the CPU, since others may not multiply matrices of integers.
    """
    words = rows.contiguous().view(torch.uint8)
    if words.shape[1] % 8:
        words = pad(words, (0, -words.shape[1] % 8))
    words = words.view(torch.int64)
    odd = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=torch.Generator().manual_seed(1)) * 2 + 1
    # A sign is the highest bit, where two products cancel out. Folded, it is among the others as well.
    return (words >> 31).bitwise_xor_(words) @ odd


def find_duplicates(ids: Tensor, hashes: Tensor, rows: TableRows, most_pairs: int) -> Duplicates:
    """Find rows that are equal (collective).

    Protocol: hashes meet on the rank that their value names, which finds those that occur more than once and tells all.
    Then, for so many of these hashes at a time, all ranks get the row of the lowest id, and compare their own with it.

    Args:
        ids: those of this rank's rows that are to be compared, int64 [N], ascending within each block.
        hashes: of these rows, from ``hash_rows``.
        most_pairs: how many to name.
    """
    repeated = _repeated(hashes, rows)
    places, are_repeated = places_of(hashes, repeated)
    ids, places = ids[are_repeated], places[are_repeated]
    firsts = torch.full((len(repeated),), rows.num_rows).scatter_reduce(0, places, ids, "amin")
    firsts = rows.gather(firsts[None]).amin(0)
    mine, of = [], []
    for start in range(0, len(repeated), _AT_A_TIME):
        now = (places >= start) & (places < start + _AT_A_TIME) & (firsts[places] != ids)
        found = _equal(ids[now], places[now] - start, rows.fetch(firsts[start : start + _AT_A_TIME]), rows)
        mine.append(ids[now][found])
        of.append(firsts[places[now][found]])
    pairs = torch.stack((torch.cat([*mine, ids[:0]]), torch.cat([*of, ids[:0]])), dim=1)
    count = int(rows.sum(torch.tensor([len(pairs)])))
    some = rows.gather(pairs[pairs[:, 0].argsort()][:most_pairs])
    some = some[some[:, 0].argsort()][:most_pairs]
    return Duplicates(count, [(row, first) for row, first in some.tolist()])


def _repeated(hashes: Tensor, rows: TableRows) -> Tensor:
    """Return the hashes that occur more than once on all ranks together, ascending (collective)."""
    size = rows.group.size
    owners = (hashes >> 32).remainder(size)
    order, counts = owners.argsort(), owners.bincount(minlength=size).tolist()
    outgoing: list[PeerRows] = split_evenly(counts)
    block = Block.of(hashes[order][:, None].to(rows.group.device))
    received = rows.group.exchange(_MEETING, blocks=[block], outgoing=[outgoing]).blocks[0]
    met, occurrences = received.flatten().cpu().unique(return_counts=True)
    return rows.gather(met[occurrences > 1]).sort().values


def _equal(ids: Tensor, of: Tensor, firsts: Tensor, rows: TableRows) -> Tensor:
    """Tell which of this rank's rows ``ids`` are equal to the rows ``of`` in ``firsts`` (local)."""
    found = torch.zeros(len(ids), dtype=torch.bool)
    if len(ids):
        for block_ids, block in rows.blocks():
            places, are_here = places_of(ids, block_ids)
            values = block[places[are_here].to(block.device)].to(firsts)
            found[are_here] = (values == firsts[of[are_here]]).all(1)
    return found
