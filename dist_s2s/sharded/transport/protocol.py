"""What ranks say to each other, and what a transport must do.

A transport is one method, ``exchange``, which every rank of the group calls in the same order, also with nothing to
send. Each rank brings a Parcel. It says which exchange this is (its Subject), whether the rank is in trouble (a
status), how many rows of each block are for each other rank, and the rows themselves. All ranks learn the subject and
status of all. Only if the subjects are equal and nobody is in trouble do blocks arrive, so nothing is ever taken for
something else. Transports differ in how they move bytes, never in the bits that arrive.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

TransportName = Literal["auto", "collective", "shared_memory"]


@dataclass
class ExchangeStatistics:
    """What exchanges have cost this rank since ``reset``, all tables of the same ranks together.

    Attributes:
        seconds: wall time inside collectives, waiting for slower ranks included (on CUDA: the time to enqueue them; in
            shared memory: the time spent waiting, since there is nothing else).
        collectives: all-to-alls, or in shared memory meetings of all ranks.
        bytes_sent: what this rank has handed over, its own share and the ids of a lookahead included, but not the empty
            room in a collective's first messages, which have a fixed size. Rows that are read in place are not sent.
        ids: how many ids were looked up.
        distinct_ids: how many rows, or sums of rows, were asked for on their behalf.
        rows_served: how many rows of its shards the ranks, itself included, have asked this rank for: its load as an
            owner. Of a lookup in place that nobody planned, they are known and counted in backward.
    """

    seconds: float = 0.0
    collectives: int = 0
    bytes_sent: int = 0
    ids: int = 0
    distinct_ids: int = 0
    rows_served: int = 0

    def reset(self) -> None:
        """Start counting anew."""
        self.seconds, self.collectives, self.bytes_sent = 0.0, 0, 0
        self.ids, self.distinct_ids, self.rows_served = 0, 0, 0


@dataclass(frozen=True)
class Subject:
    """Which exchange this is: the same on all ranks, or the exchange is refused on all of them.

    Attributes:
        text: names it to a person: its kind, its tables with their size and dtype, and the number of the lookup that it
            belongs to.
    """

    text: str

    @property
    def identity(self) -> int:
        """A hash of the text, a signed 64-bit integer."""
        return int.from_bytes(blake2b(self.text.encode(), digest_size=8).digest(), signed=True)


class PeerRows(NamedTuple):
    """Which rows of a rank's block are for one other rank: ``count`` from ``start`` on, of ``total`` in the block."""

    count: int  # type: ignore[assignment]  # in place of tuple.count, which nobody needs
    start: int
    total: int


@dataclass(frozen=True)
class Block:
    """Rows to send, [num_rows, width], which are made when they are needed.

    Attributes:
        dtype: what they travel in.
        make: returns the rows, in a tensor that may be changed unless ``divisor`` is 1.
        divisor: what they are divided by on their way.
    """

    num_rows: int
    width: int
    dtype: torch.dtype
    make: Callable[[], Tensor]
    divisor: float = 1

    @classmethod
    def of(cls, rows: Tensor) -> "Block":
        """Return the block of these rows, [N, ...]: width is the product of the further dimensions."""
        width = math.prod(rows.shape[1:])
        return cls(len(rows), width, rows.dtype, lambda: rows.reshape(len(rows), width))

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows as they travel."""
        return self.num_rows * self.width * self.dtype.itemsize

    def write(self, target: Tensor) -> None:
        """Write the rows into ``target``, [num_rows, width] of ``dtype``."""
        if self.divisor == 1:
            target.copy_(self.make())
        else:
            torch.div(self.make(), self.divisor, out=target)

    def divided(self) -> Tensor:
        """Return the rows as they were made, divided."""
        return self.make() if self.divisor == 1 else self.make().div_(self.divisor)


@dataclass(frozen=True)
class Parcel:
    """What a rank brings to an exchange.

    Attributes:
        status: 0, or the number of an error.
        note: a further number that all ranks learn; it stops nothing.
        numbers: integers for all ranks, equally many on each.
        blocks: rows to send; as many, and of the same widths and dtypes, on every rank.
        outgoing: for each block and rank, which rows are for it. Parts may overlap.
        expected: for each block and rank, what will come, if all ranks know that from an exchange of the same call.
            Collectives then need no header.
    """

    subject: Subject
    status: int = 0
    note: int = 0
    numbers: Sequence[int] = ()
    blocks: Sequence[Block] = ()
    outgoing: Sequence[Sequence[PeerRows]] = ()
    expected: Sequence[Sequence[PeerRows]] | None = None

    @property
    def num_words(self) -> int:
        """How many integers ``words`` returns, on every rank."""
        return len(self.numbers) + 3 * len(self.blocks)

    def words(self, rank: int) -> list[int]:
        """Return what to tell a rank beside rows: the numbers, then which rows of each block are for it."""
        return [*self.numbers, *(word for rows in self.outgoing for word in rows[rank])]

    def read_words(self, words: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[PeerRows]]]:
        """Return the numbers, and for each block the rows for this rank, from the ``words`` of each rank to it."""
        begin = len(self.numbers)
        numbers = [list(row[:begin]) for row in words]
        return numbers, [[PeerRows(*row[b : b + 3]) for row in words] for b in range(begin, self.num_words, 3)]


@dataclass(frozen=True)
class Received:
    """What all ranks brought, by rank.

    Attributes:
        identities, statuses, notes: of each rank.
        numbers: of each rank; empty if the exchange is refused, like all that follows.
        incoming: for each block and rank, which rows of the rank's block are for this one.
        blocks: for each block the rows for this rank, [sum of counts, width], by the rank that sent them.
    """

    identities: list[int]
    statuses: list[int]
    notes: list[int]
    numbers: list[list[int]] = field(default_factory=list)
    incoming: list[list[PeerRows]] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)

    @property
    def is_refused(self) -> bool:
        """Whether a rank is in trouble, or ranks have come to different exchanges."""
        return any(self.statuses) or len(set(self.identities)) > 1


class Transport(Protocol):
    """Moves rows between the ranks of a group."""

    name: str
    rank: int
    size: int
    statistics: ExchangeStatistics

    def exchange(self, parcel: Parcel) -> Received:
        """Exchange parcels with all ranks (collective).

        Raises:
            RuntimeError: on all ranks, if one has died, does not come in time, or has no memory. It is named.
        """


class LocalTransport:
    """A single rank, which talks to itself; nothing is converted to the dtype in which it would travel."""

    name = "local"
    rank, size = 0, 1

    def __init__(self) -> None:
        self.statistics = ExchangeStatistics()

    def exchange(self, parcel: Parcel) -> Received:
        """Return what was brought."""
        header = [parcel.subject.identity], [parcel.status], [parcel.note]
        if parcel.status:
            return Received(*header)
        incoming = [list(rows) for rows in parcel.outgoing]
        return Received(*header, [list(parcel.numbers)], incoming, [block.divided() for block in parcel.blocks])


def split_evenly(counts: Sequence[int]) -> list[PeerRows]:
    """Return the parts of a block whose rows are ordered by the rank they are for: ``counts`` of them for each."""
    starts = [sum(counts[:rank]) for rank in range(len(counts))]
    return [PeerRows(count, start, sum(counts)) for count, start in zip(counts, starts, strict=True)]
