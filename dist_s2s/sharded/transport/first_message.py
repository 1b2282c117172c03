"""The first message of an exchange by collectives: words, and behind them the rows, if there is room for all.

It has the same number of bytes in every exchange, whatever it carries (an eager protocol, as in MPI), so that ranks
which have come to different exchanges find that out.

    identity, status, note, whether rows follow | numbers | count, start and total of each block | rows of each block
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.transport.layout import places, view
from dist_s2s.sharded.transport.protocol import Parcel, PeerRows

FIXED_WORDS = 4
_WORD_BYTES = 8  # int64


class FirstMessage:
    """What this rank says to each of ``num_ranks`` first, and how it reads what they say.

    Attributes:
        words: int64 [num_ranks, number of words]; there may be more than fit.
        rows_follow: whether the rows for some rank do not fit.
        carries_rows: whether those for all ranks fit, and this one is not in trouble.
        num_bytes_used: of all messages together, without the room that stays empty.
    """

    def __init__(self, parcel: Parcel, num_ranks: int, num_bytes: int) -> None:
        self._parcel, self._num_ranks, self._num_bytes = parcel, num_ranks, num_bytes
        self._row_words = FIXED_WORDS + parcel.num_words
        ends = [self._places(_of_rank(parcel.outgoing, rank))[1] for rank in range(num_ranks)]
        self.rows_follow = not parcel.status and max(ends) > num_bytes
        self.carries_rows = not parcel.status and not self.rows_follow
        self.num_bytes_used = sum(ends) if self.carries_rows else num_ranks * self.fitting * _WORD_BYTES
        fixed = [parcel.subject.identity, parcel.status, parcel.note, int(self.rows_follow)]
        self.words = torch.tensor([[*fixed, *parcel.words(rank)] for rank in range(num_ranks)])

    @property
    def fitting(self) -> int:
        """How many words fit."""
        return min(self._row_words, self._num_bytes // _WORD_BYTES)

    def write(self, tensors: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return the messages, uint8 [num_ranks, num_bytes]; with rows of ``tensors``, the blocks, if there are any."""
        messages = torch.zeros(self._num_ranks, self._num_bytes, dtype=torch.uint8, device=device)
        self.words_in(messages).copy_(self.words[:, : self.fitting])
        for rank in range(self._num_ranks if tensors else 0):
            parts = _of_rank(self._parcel.outgoing, rank)
            for rows, tensor, target in zip(parts, tensors, self._rows_in(messages[rank], parts), strict=True):
                target.copy_(tensor[rows.start : rows.start + rows.count])
        return messages

    def words_in(self, messages: Tensor) -> Tensor:
        """Return the words that fit, int64 [num_ranks, fitting]."""
        return messages[:, : self.fitting * _WORD_BYTES].view(torch.int64)

    def read_rows(self, messages: Tensor, incoming: Sequence[Sequence[PeerRows]]) -> list[Tensor]:
        """Return the rows of each block that came for this rank, in tensors of their own."""
        arrived = [self._rows_in(message, _of_rank(incoming, rank)) for rank, message in enumerate(messages)]
        return [torch.cat(parts) for parts in zip(*arrived, strict=True)]

    def _places(self, parts: Sequence[PeerRows]) -> tuple[list[int], int]:
        row_bytes = [block.width * block.dtype.itemsize for block in self._parcel.blocks]
        sizes = [rows.count * size for rows, size in zip(parts, row_bytes, strict=True)]
        return places(self._row_words * _WORD_BYTES, sizes)

    def _rows_in(self, message: Tensor, parts: Sequence[PeerRows]) -> list[Tensor]:
        blocks, (begins, _) = self._parcel.blocks, self._places(parts)
        return [
            view(message, begin, (rows.count, block.width), block.dtype)
            for begin, rows, block in zip(begins, parts, blocks, strict=True)
        ]


def _of_rank(rows: Sequence[Sequence[PeerRows]], rank: int) -> list[PeerRows]:
    """Return which rows of each block are for one rank, or have come from it."""
    return [of_block[rank] for of_block in rows]
