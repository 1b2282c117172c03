"""Lookups whose ids have been exchanged before they are needed, while the batch before was computed.

Protocol, for batch k + 1, in a background thread and a process group of its own while the caller works on batch k:

    1. state     I have a batch, I have no more, or I could not make one
    2. the plan  what route.ask exchanges

When the caller asks for batch k + 1, only its rows are left to be read or to travel, in the tables' own group. A batch
and its plan are never parted, so that no rank can bring the plan of another batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar
from weakref import finalize

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.exchange.plan import ExchangePlan
from dist_s2s.sharded.exchange.shard import TableShard, subject_of
from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.background import ENDED, FAILED, READY, InBackground, agree_on_batches
from dist_s2s.sharded.tables.beginning import prepare, replicas_told
from dist_s2s.sharded.tables.lookup import ask_in_group, follow
from dist_s2s.sharded.transport.group import RankGroup, local_group
from dist_s2s.sharded.transport.making import give_back, make_background_group, new_process_group
from dist_s2s.sharded.transport.protocol import Subject

Batch = TypeVar("Batch")
_STATE = Subject("the state of a lookahead's next batch")


class Lookahead(Generic[Batch]):
    """Walks through batches, with the rows that each of them needs.

        for batch, (source, target) in Lookahead(tables, batches, lambda batch: [batch.source, batch.target]):
            ...

    Building it and each step of the loop are collective: every rank must take as many steps.

    Args:
        tables: as of ``lookup``.
        batches: iterated in the background, one ahead of the loop.
        ids_of: returns the ids of a batch for each table; called in the background too.
        process_group: a gloo group of the same ranks as the tables', for this alone. By default a new group of all
            ranks, which lasts as long as this object.
        before_rows: called in the loop when a batch is ready, before its rows are read or travel.

    Besides the errors of ``lookup``, the loop raises RuntimeError on every rank if only some ranks have another batch,
    or if making one raised an error on another rank; on that rank itself the error is raised as it is. With replicas
    (hybrid sharding) this RuntimeError stays within the replica.
    """

    def __init__(
        self,
        tables: Sequence[TableShard],
        batches: Iterable[Batch],
        ids_of: Callable[[Batch], Sequence[Tensor]],
        process_group: dist.ProcessGroup | None = None,
        before_rows: Callable[[], None] = lambda: None,
    ) -> None:
        self.tables, self.ids_of, self._before_rows = tables, ids_of, before_rows
        self._batches = iter(batches)
        self._group = self._background(process_group)
        self._following: InBackground[tuple[Batch, ExchangePlan] | None] | None = None

    def __iter__(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Yield the batches in order, each with its rows; a second loop goes on where a first one was left."""
        if self._following is None:
            self._following = self._begin()
        try:
            while (planned := self._result(self._following)) is not None:
                batch, plan = planned
                self._before_rows()
                if plan.partitions != self._partitions():  # a table has grown since
                    plan = self._plan([part.ids for part in plan.parts], self._partitions(), plan.number)
                rows = follow(self.tables, plan.to(self.tables[0].weight.device))
                self._following = self._begin()  # only now, so as not to slow the rows down
                yield batch, rows
        finally:  # a loop that ends early leaves no collective behind, unless the others do not come
            self._following.abandon()

    def _background(self, process_group: dist.ProcessGroup | None) -> RankGroup:
        group = self.tables[0].group
        if group.size == 1:
            return local_group(torch.device("cpu"))
        if process_group is None:
            if group.size != dist.get_world_size():
                raise ValueError("the tables are not on all ranks; pass process_group, a further group of their ranks")
            process_group = new_process_group(backend="gloo")
            finalize(self, give_back, process_group).atexit = False
        return make_background_group(process_group, "auto" if group.transport.name == "shared_memory" else "collective")

    def _partitions(self) -> tuple[RowPartition, ...]:
        return tuple(table.partition for table in self.tables)

    def _begin(self) -> InBackground[tuple[Batch, ExchangePlan] | None]:
        # Taken here, where both are the same on all ranks, should a table grow or be looked up soon.
        partitions, group = self._partitions(), self.tables[0].group
        number = group.begin_lookup()
        return InBackground(lambda: self._next(partitions, number), "lookahead")

    def _result(self, following: InBackground[tuple[Batch, ExchangePlan] | None]) -> tuple[Batch, ExchangePlan] | None:
        with replicas_told(self.tables):
            result = following.result()
        ahead = self._group.statistics  # of nobody else: the background rests until the next batch is begun
        self.tables[0].group.statistics.bytes_sent += ahead.bytes_sent
        ahead.reset()
        return result

    def _next(self, partitions: tuple[RowPartition, ...], number: int) -> tuple[Batch, ExchangePlan] | None:
        batch: Batch | None = None
        ids: Sequence[Tensor] = []
        state, error = READY, None
        try:
            batch = next(self._batches)
            ids = [mine.cpu() if isinstance(mine, Tensor) else mine for mine in self.ids_of(batch)]
        except StopIteration:
            state = ENDED
        except Exception as caught:
            state, error = FAILED, caught
        self._agree(state, error)
        if state == ENDED:
            return None
        return batch, self._plan(ids, partitions, number)  # type: ignore[return-value]

    def _plan(self, ids: Sequence[Tensor], partitions: tuple[RowPartition, ...], number: int) -> ExchangePlan:
        subject = subject_of("the plan ahead of lookup", self.tables, number)
        parts = ask_in_group(self.tables, ids, partitions, self._group, subject, prepare(self.tables, ids)[1])
        return ExchangePlan(number, self.tables[0].group, parts)

    def _agree(self, state: int, error: Exception | None) -> None:
        """Return if all ranks are ready, or all have ended; otherwise raise."""
        states = [theirs for (theirs,) in agree_on_batches(self._group, _STATE, state, error)]
        if len(set(states)) > 1:
            raise RuntimeError(
                f"rank {states.index(ENDED)} has no more batches, but rank {states.index(READY)} has; "
                "all ranks must have as many: wrap the batches in dist_s2s.sharded.uneven"
            )
