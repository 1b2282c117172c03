"""Loops over batches of which some ranks have fewer than others.

Every lookup and every backward is collective, so that a rank whose batches have ended must go on with empty ones until
those of all ranks have. Protocol, for batch k + 1, in a background thread and a process group of its own while the
caller works on batch k:

    1. state     I have a batch of so many examples; I have no more; likewise, and I don't know what an empty one looks
                 like; I could not make one
    2. likeness  only if a rank doesn't know and another one has a batch: what an empty batch looks like

The batches themselves are made in the caller's thread, one ahead of the loop.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar
from weakref import finalize

import torch
import torch.distributed as dist

from dist_s2s.sharded.companions.empty_batches import describe, emptied, restore
from dist_s2s.sharded.tables.background import ENDED, FAILED, READY, InBackground, agree_on_batches
from dist_s2s.sharded.transport.group import RankGroup, local_group
from dist_s2s.sharded.transport.making import give_back, make_background_group, new_process_group
from dist_s2s.sharded.transport.protocol import Subject

Batch = TypeVar("Batch")
_AT_A_LOSS = 3  # beside READY, ENDED and FAILED: ended, and without an empty batch


def uneven(
    batches: Iterable[Batch],
    process_group: dist.ProcessGroup | None = None,
    *,
    empty: Callable[[], Batch] | None = None,
) -> "UnevenBatches[Batch]":
    """Return ``batches`` for a loop in which ranks that have fewer of them keep in step with empty ones (collective).

        for batch in uneven(loader):
            ...

    Each step of the loop is collective, and costs no time of its own: ranks tell each other in the background, while
    the batch before is computed. Leave the loop on all ranks at the same batch, or on none.

    Args:
        batches: iterated anew by each loop, one batch ahead of it.
        process_group: a gloo group of the ranks that go in step, for this alone. By default a new group of all ranks,
            which lasts as long as what is returned.
        empty: returns a batch without examples. By default it is made from a batch that the rank has had, or that
            another rank has: tensors without any rows, see ``empty_batches.emptied``.
    """
    return UnevenBatches(batches, process_group, empty)


@dataclass
class _Next(Generic[Batch]):
    """A rank's next batch: its state, and what belongs to that."""

    state: int
    batch: Batch | None = None
    count: int = 0
    error: Exception | None = None


class UnevenBatches(Generic[Batch]):
    """What ``uneven`` returns; to be iterated any number of times."""

    def __init__(
        self, batches: Iterable[Batch], process_group: dist.ProcessGroup | None, empty: Callable[[], Batch] | None
    ) -> None:
        self._batches, self._empty = batches, empty
        self._passes = 0
        # An empty batch like the last one, or why there can be none; unless the caller makes them.
        self._like: Batch | TypeError | None = None
        self._group = self._background(process_group)

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches, then empty ones until all ranks have ended.

        Raises:
            Exception: what making a batch has raised on this rank; on the others a RuntimeError that quotes it.
            TypeError: on every rank, if a rank cannot know what an empty batch looks like.
        """
        return (batch for batch, _ in self._walk(None))

    def counted(self, count: Callable[[Batch], int]) -> Iterator[tuple[Batch, int]]:
        """Yield each batch with the number of examples in the batches of all ranks together.

        That number makes a mean over all ranks of a sum on each: DistributedDataParallel and tables average gradients
        over ranks, so ``loss = world_size * sum_of_losses / number`` has the gradient of one process with all examples.

        Args:
            count: returns the number of examples, or whatever the mean is over, in a batch; not called for empty ones.
        """
        return self._walk(count)

    def _background(self, process_group: dist.ProcessGroup | None) -> RankGroup:
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(process_group) == 1:
            return local_group(torch.device("cpu"))
        if process_group is None:
            process_group = new_process_group("gloo")
            finalize(self, give_back, process_group).atexit = False
        return make_background_group(process_group, "auto")

    def _walk(self, count: Callable[[Batch], int] | None) -> Iterator[tuple[Batch, int]]:
        self._passes += 1
        where = f"pass {self._passes} over uneven batches, {'not ' if count is None else ''}counted"
        source = self._source()
        number, mine = 1, self._fetch(source, count)
        agreeing = InBackground(partial(self._agree, mine, Subject(f"batch 1 of {where}")), "uneven")
        try:
            while (total := agreeing.result()) is not None:
                batch = mine.batch
                number, mine = number + 1, self._fetch(source, count)
                agreeing = InBackground(partial(self._agree, mine, Subject(f"batch {number} of {where}")), "uneven")
                yield batch, total  # type: ignore[misc]
        finally:  # a loop that ends early leaves no collective behind, unless the others do not come
            agreeing.abandon()

    def _source(self) -> Iterator[Batch]:
        yield from self._batches  # an error of iter() is one of the first batch

    def _fetch(self, source: Iterator[Batch], count: Callable[[Batch], int] | None) -> _Next[Batch]:
        try:
            for batch in source:
                if self._empty is None:
                    self._like = _emptied_or_why(batch)  # before the loop gets it, which may change it
                return _Next(READY, batch, 0 if count is None else int(count(batch)))
        except Exception as error:
            return _Next(FAILED, error=error)
        try:
            if self._empty is not None:
                return _Next(ENDED, self._empty())
            if isinstance(self._like, TypeError):
                raise self._like
            return _Next(_AT_A_LOSS) if self._like is None else _Next(ENDED, emptied(self._like))
        except Exception as error:  # which concerns nobody if all ranks have ended
            text = f"rank {self._group.rank} could not make an empty batch: {type(error).__name__}: {error}"
            return _Next(_AT_A_LOSS, error=RuntimeError(text))

    def _agree(self, mine: _Next[Batch], subject: Subject) -> int | None:
        """Return how many examples all ranks have in this batch, or None if all have ended (collective)."""
        error = mine.error if mine.state == FAILED else None
        reports = agree_on_batches(self._group, subject, mine.state, error, [mine.count])
        states = [state for state, _ in reports]
        if READY not in states:
            return None
        if _AT_A_LOSS in states:
            subject = Subject(f"an empty batch instead of {subject.text}")
            self._group.agree(subject, mine.error)
            likeness = self._likeness(mine.batch, states, subject)
            if mine.state == _AT_A_LOSS:
                mine.batch, self._like = restore(likeness), restore(likeness)
        return sum(count for _, count in reports)

    def _likeness(self, batch: Batch | None, states: list[int], subject: Subject) -> str:
        """Return the description of an empty batch by the first rank that has a batch (collective)."""
        rank, text, error = states.index(READY), "", None
        if self._group.rank == rank:
            try:
                text = describe(emptied(batch))
            except TypeError as caught:
                lost = states.index(_AT_A_LOSS)
                error = TypeError(
                    f"rank {lost} has had no batch, and cannot be told what an empty one is like: {caught}"
                )
        self._group.agree(subject, error)
        return self._group.gather_texts(text, subject)[rank]


def _emptied_or_why(batch: Batch) -> Batch | TypeError:
    try:
        like: Batch = emptied(batch)
    except TypeError as error:  # told where an empty one is needed
        return error
    return like
