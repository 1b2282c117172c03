"""The ranks that share something, and how they agree, or all learn of one rank's trouble."""

import os
import struct
from collections.abc import Mapping, Sequence
from threading import RLock
from typing import NoReturn
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.transport.protocol import (
    Block,
    ExchangeStatistics,
    LocalTransport,
    Parcel,
    PeerRows,
    Received,
    Subject,
    Transport,
)

# The status that tells other ranks of an error is one more than its place here.
_ERRORS: tuple[type[Exception], ...] = (IndexError, TypeError, ValueError, RuntimeError)


class AgreedError(RuntimeError):
    """A RuntimeError of any rank that all of them raise alike; plain ones, of the transport say, may be one rank's."""


class ExchangeMismatchError(AgreedError):
    """Ranks have come to different exchanges. The text, the same on all of them, says which."""


AGREED_ERRORS = (IndexError, TypeError, ValueError, AgreedError)  # a caller's mistake, on all ranks alike


class RankGroup:
    """The ranks that share tables. Every method that communicates is collective: all ranks must call it alike.

    A single process is a group of one rank that talks to itself (``local_group``), so nothing else has to ask whether
    there are other ranks.

    Attributes:
        transport: how bytes move between the ranks.
        device: where the tables are.
        process_group: the ranks, for torch.distributed; None for a single process.
        replicas: the ranks that hold the same rows as this one (hybrid sharding); itself alone unless there are others.
        lookups: how many lookups these ranks have begun, the same number on each.
        tables: how many tables they have built.
        stores: where the rows of these are, as long as they are there.
        lock: held by a thread during a lookup, so that what it exchanges stays together.
    """

    def __init__(
        self,
        transport: Transport,
        device: torch.device,
        process_group: dist.ProcessGroup | None = None,
        replicas: "RankGroup | None" = None,
    ) -> None:
        self.transport, self.device, self.process_group = transport, device, process_group
        self.replicas: RankGroup = self if replicas is None and transport.size == 1 else replicas or local_group(device)
        self.lookups = self.tables = 0
        self.stores: WeakSet[object] = WeakSet()
        self.lock = RLock()
        self._process = os.getpid()

    @property
    def rank(self) -> int:
        """This rank's number within the group."""
        return self.transport.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.transport.size

    @property
    def is_alone(self) -> bool:
        """Whether this process talks to nobody but itself."""
        return self.transport.name == "local" and self.replicas is self

    @property
    def statistics(self) -> ExchangeStatistics:
        """What exchanges have cost this rank."""
        return self.transport.statistics

    def exchange(
        self,
        subject: Subject,
        error: Exception | None = None,
        *,
        note: int = 0,
        numbers: Sequence[int] = (),
        blocks: Sequence[Block] = (),
        outgoing: Sequence[Sequence[PeerRows]] = (),
        expected: Sequence[Sequence[PeerRows]] | None = None,
    ) -> Received:
        """Exchange parcels with all ranks; see Parcel for the arguments.

        Args:
            error: what is wrong on this rank: an IndexError, TypeError, ValueError or RuntimeError.

        Raises:
            ExchangeMismatchError: on every rank, if ranks have come to different exchanges; names two of them.
            Exception: on every rank the ``error`` of the first rank that has one, as an AgreedError if it is a plain
                RuntimeError.
            RuntimeError: in a process that was forked from a rank, such as a data loader's worker.
        """
        if self.size > 1 and os.getpid() != self._process:  # it would speak in the name of the rank
            raise RuntimeError(
                f"{subject.text} is in a process that was forked from rank {self.rank}, and does not belong to the "
                "ranks itself; let the workers of a data loader return ids, and look them up where the model is"
            )
        parcel = Parcel(subject, _status_of(error), note, numbers, blocks, outgoing, expected)
        with self.lock:
            received = self.transport.exchange(parcel)
            if received.is_refused:
                self._refuse(received, subject, error)
        return received

    def begin_lookup(self) -> int:
        """Return the number of a new lookup (local)."""
        with self.lock:
            self.lookups += 1
            return self.lookups

    def agree(self, subject: Subject, error: Exception | None = None, numbers: Sequence[int] = ()) -> list[list[int]]:
        """Return the numbers of each rank, by rank; raises as ``exchange`` does."""
        return self.exchange(subject, error, numbers=numbers).numbers

    def agree_on_floats(
        self, subject: Subject, values: Sequence[float], error: Exception | None = None
    ) -> list[list[float]]:
        """Return the float64 values of each rank, by rank, bit by bit; raises as ``exchange`` does."""
        form = f"{len(values)}"
        numbers = self.agree(subject, error, struct.unpack(f"{form}q", struct.pack(f"{form}d", *values)))
        return [list(struct.unpack(f"{form}d", struct.pack(f"{form}q", *theirs))) for theirs in numbers]

    def gather(
        self, tensor: Tensor, subject: Subject, counts: Sequence[int] | None = None, dst: int | None = None
    ) -> Tensor:
        """Return the rows of all ranks, [sum of counts, ...], ordered by rank, from those of this rank, [N, ...].

        Args:
            tensor: of the same dtype and trailing dimensions on every rank.
            counts: rows of each rank, if all ranks know them from an exchange of the same call.
            dst: the only rank that gets any rows; None: all of them do.
        """
        is_given = [dst in (None, rank) for rank in range(self.size)]
        parts = [PeerRows(len(tensor) * given, 0, len(tensor)) for given in is_given]
        mine = is_given[self.rank]
        expected = None if counts is None else [[PeerRows(count * mine, 0, count) for count in counts]]
        received = self.exchange(subject, blocks=[Block.of(tensor)], outgoing=[parts], expected=expected)
        count = sum(rows.count for rows in received.incoming[0])
        return received.blocks[0].view(count, *tensor.shape[1:])

    def to_all(self, tensor: Tensor) -> list[PeerRows]:
        """Return the parts of a block of which every rank gets all rows."""
        return [PeerRows(len(tensor), 0, len(tensor))] * self.size

    def gather_texts(self, text: str, subject: Subject) -> list[str]:
        """Return the text of each rank, by rank."""
        return self._gather_texts(text, subject)[0]

    def check_same(self, settings: Mapping[str, object], subject: Subject) -> None:
        """Raise the same ValueError on every rank if a setting differs between two of them."""
        lines = [text.split("\n") for text in self.gather_texts("\n".join(map(_line, settings.values())), subject)]
        for rank, values in enumerate(lines):
            for name, first, value in zip(settings, lines[0], values, strict=True):
                if value != first:
                    raise ValueError(
                        f"{name} must be the same on every rank, but is {first} on rank 0 and {value} on rank {rank}"
                    )

    def check_same_everywhere(self, settings: Mapping[str, object], subject: Subject) -> None:
        """Do as ``check_same``, also among replicas: if ranks of one group differ, those of the others learn it too."""
        error: Exception | None = None
        try:
            self.check_same(settings, subject)
        except ValueError as caught:
            error = caught
        self.replicas.agree(subject, error)
        self.replicas.check_same(settings, subject)

    def _gather_texts(
        self, text: str, subject: Subject, numbers: Sequence[int] = ()
    ) -> tuple[list[str], list[list[int]]]:
        """Return the text and the numbers of each rank, by rank."""
        encoded = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        received = self.exchange(subject, numbers=numbers, blocks=[Block.of(encoded)], outgoing=[self.to_all(encoded)])
        parts = received.blocks[0].flatten().split([rows.count for rows in received.incoming[0]])
        return [bytes(part.tolist()).decode() for part in parts], received.numbers

    def _refuse(self, received: Received, subject: Subject, error: Exception | None) -> NoReturn:
        """Raise what is wrong, which all ranks know to be something: so all of them exchange the texts.

        Ranks that came to different exchanges may have begun different numbers of lookups: they agree on one again.
        """
        text = subject.text if error is None else str(error)
        texts, numbers = self._gather_texts(text, Subject("the text of an error"), [self.lookups])
        self.lookups = max(lookups for (lookups,) in numbers)
        if not any(received.statuses):
            other = next(rank for rank, who in enumerate(received.identities) if who != received.identities[0])
            raise ExchangeMismatchError(
                f"all ranks must take part in the same exchange, but rank 0 is in {texts[0]}, and rank {other} in "
                f"{texts[other]}; call the tables in the same order on every rank, and run backward on all or on none"
            )
        first = next(rank for rank, status in enumerate(received.statuses) if status)
        if error is not None and first == self.rank and isinstance(error, AGREED_ERRORS):
            raise error
        kind = _ERRORS[received.statuses[first] - 1]
        raised = (AgreedError if kind is RuntimeError else kind)(texts[first])
        if error is not None and first == self.rank:
            raise raised.with_traceback(error.__traceback__) from error.__cause__
        raise raised from None if str(error) == texts[first] else error


def local_group(device: torch.device, replicas: RankGroup | None = None) -> RankGroup:
    """Return the group of a rank that holds all rows itself."""
    return RankGroup(LocalTransport(), device, replicas=replicas)


def _status_of(error: Exception | None) -> int:
    return 0 if error is None else 1 + next(number for number, kind in enumerate(_ERRORS) if isinstance(error, kind))


def _line(value: object) -> str:
    return str(value).replace("\n", " ")
