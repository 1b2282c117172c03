"""Lookups whose ids have been exchanged before they are needed, while the batch before was computed.

Protocol, for batch k + 1, in a background thread and a process group of its own while the caller works on batch k:

    1. state     all_gather: I have a batch, I have no more, or I could not make one
    2. the plan  what exchange.plan_exchange exchanges

When the caller asks for batch k + 1, only its rows are left to travel, in the tables' own group. A batch and its plan
are never parted, so that no rank can bring the plan of another batch.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.agreement import gather_texts
from dist_s2s.sharded.choose_transport import choose_transport
from dist_s2s.sharded.embedding import DistributedEmbedding
from dist_s2s.sharded.lookup import count_ids, lookup_planned, plan_in_group, raise_with_replicas
from dist_s2s.sharded.partition import RowPartition
from dist_s2s.sharded.plan import ExchangePlan
from dist_s2s.sharded.transport import ExchangeStatistics

Batch = TypeVar("Batch")
Result = TypeVar("Result")
_READY, _ENDED, _FAILED = 0, 1, 2
_SECONDS_TO_FINISH = 5.0


class _InBackground(Generic[Result]):
    """One call of a function in a thread of its own."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._results: list[Result] = []
        self._errors: list[BaseException] = []
        # A daemon, so that a rank that leaves with an error does not wait for the others to meet it here.
        self.thread = threading.Thread(target=self._work, daemon=True, name="lookahead")
        self.thread.start()

    def result(self) -> Result:
        """What the function returned, when it has; raises what it raised."""
        self.thread.join()
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def _work(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:  # result raises it, in the thread that waits
            self._errors.append(error)


class Lookahead(Generic[Batch]):
    """Walks through batches, with the rows that each of them needs.

        for batch, (source, target) in Lookahead(tables, batches, lambda batch: [batch.source, batch.target]):
            ...

    Building it and each step of the loop are collective: every rank must take as many steps. On the critical path is
    one all_to_all, and one more in backward.

    tables: as of ``lookup``. batches: iterated in the background, one ahead of the loop. ids_of: the ids of a batch for
    each table, called in the background too.
    process_group: a gloo group of the same ranks as the tables', for this alone. By default a new group of all ranks,
        which lasts as long as the process: pass one to make more than a few of these.

    Besides the errors of ``lookup``, the loop raises RuntimeError on every rank if only some ranks have another batch,
    or if making one raised an error on another rank; on that rank itself the error is raised as it is. With replicas
    (hybrid sharding) this RuntimeError stays within the replica.
    """

    def __init__(
        self,
        tables: Sequence[DistributedEmbedding],
        batches: Iterable[Batch],
        ids_of: Callable[[Batch], Sequence[Tensor]],
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self.tables, self.ids_of = tables, ids_of
        self._batches = iter(batches)
        self._group = process_group if tables[0].process_group is not None else None
        if self._group is None and tables[0].process_group is not None:
            if tables[0].world_size != dist.get_world_size():
                raise ValueError("the tables are not on all ranks; pass process_group, a further group of their ranks")
            self._group = dist.new_group(backend="gloo")
        shared = tables[0].transport.name == "shared_memory"
        self._transport = choose_transport("auto" if shared else "collective", self._group, torch.device("cpu"))
        self._following: _InBackground[tuple[Batch, ExchangePlan] | None] | None = None
        self._statistics = ExchangeStatistics()  # of the background, which nobody waits for

    def __iter__(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """The batches in order, each with its rows; a second loop goes on where a first one was left."""
        if self._following is None:
            self._following = self._begin()
        try:
            while (planned := self._result(self._following)) is not None:
                batch, plan = planned
                if plan.partitions != self._partitions():  # a table has grown since
                    plan = self._plan([part.ids for part in plan.parts], self._partitions())
                count_ids(self.tables, plan.parts)
                rows = lookup_planned(self.tables, plan.to(self.tables[0].weight.device))
                self._following = self._begin()  # only now, so as not to slow the rows down
                yield batch, rows
        finally:  # a loop that ends early leaves no collective behind, unless the others do not come
            self._following.thread.join(_SECONDS_TO_FINISH)

    def _partitions(self) -> tuple[RowPartition, ...]:
        return tuple(table.partition for table in self.tables)

    def _begin(self) -> _InBackground[tuple[Batch, ExchangePlan] | None]:
        partitions = self._partitions()  # taken here, where it is the same on all ranks, should a table grow soon
        return _InBackground(lambda: self._next(partitions))

    def _result(self, following: _InBackground[tuple[Batch, ExchangePlan] | None]) -> tuple[Batch, ExchangePlan] | None:
        try:
            return following.result()
        except (IndexError, TypeError, ValueError) as error:
            raise_with_replicas(error, self.tables)

    def _next(self, partitions: tuple[RowPartition, ...]) -> tuple[Batch, ExchangePlan] | None:
        batch: Batch | None = None
        ids: Sequence[Tensor] = []
        state, error = _READY, None
        try:
            batch = next(self._batches)
            ids = [mine.cpu() if isinstance(mine, Tensor) else mine for mine in self.ids_of(batch)]
        except StopIteration:
            state = _ENDED
        except Exception as caught:
            state, error = _FAILED, caught
        self._agree(state, error)
        if state == _ENDED:
            return None
        return batch, self._plan(ids, partitions)  # type: ignore[return-value]

    def _plan(self, ids: Sequence[Tensor], partitions: tuple[RowPartition, ...]) -> ExchangePlan:
        parts = plan_in_group(self.tables, ids, partitions, self._transport, self._group, self._statistics)
        return ExchangePlan(0, self.tables[0].process_group, partitions, parts)

    def _agree(self, state: int, error: Exception | None) -> None:
        """Returns if all ranks are ready, or all have ended; otherwise raises."""
        if self._group is None:
            if error is not None:
                raise error
            return
        states = torch.stack(self._transport.gather(torch.tensor([state]), self._statistics)).flatten().tolist()
        if _FAILED in states:
            texts = gather_texts("" if error is None else f"{type(error).__name__}: {error}", self._group, "cpu")
            if error is not None:
                raise error
            rank = states.index(_FAILED)
            raise RuntimeError(f"rank {rank} could not make its next batch: {texts[rank]}")
        if len(set(states)) > 1:
            raise RuntimeError(
                f"rank {states.index(_ENDED)} has no more batches, but rank {states.index(_READY)} has; "
                "all ranks must have as many"
            )
