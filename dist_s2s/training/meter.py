"""Figures of the training steps since the last report, summed over the ranks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding


@dataclass(frozen=True)
class Report:
    """clock: seconds of training so far; window: seconds of the reported steps, both by the first rank's clock."""

    values: dict[str, float]
    clock: float
    window: float


class Meter:
    """Counts what each step has seen; validation and saving happen between ``report`` and ``restart``, uncounted."""

    def __init__(self, ranks: Ranks, tables: Sequence[DistributedEmbedding], seconds_before: float) -> None:
        """seconds_before: training time of the run before this process."""
        self._ranks = ranks
        self._groups = list(dict.fromkeys(table.group for table in tables))  # tables of one group count together
        self._start = time.monotonic() - seconds_before
        self.restart()

    def restart(self) -> None:
        """Forgets everything but the clock."""
        self._loss, self._target_tokens, self._steps = 0.0, 0, 0
        self._window_start = time.monotonic()
        for group in self._groups:
            group.statistics.reset()

    def add(self, loss: float, target_tokens: int) -> None:
        """Counts a step. loss: this rank's part of the mean loss; target_tokens: those of the global batch."""
        self._loss += loss
        self._target_tokens += target_tokens
        self._steps += 1

    def report(self) -> Report | None:
        """Figures of the steps since the last report, the same on all ranks (one all_reduce); None without any step."""
        if self._steps == 0:
            return None
        now, exchange = time.monotonic(), [group.statistics for group in self._groups]
        first = [now - self._start, now - self._window_start] if self._ranks.is_first else [0.0, 0.0]
        mine = [
            self._loss,
            sum(of_group.seconds for of_group in exchange),
            sum(of_group.ids for of_group in exchange),
            sum(of_group.distinct_ids for of_group in exchange),
            *first,
        ]
        loss, exchange_seconds, ids, distinct_ids, clock, window = self._ranks.sum(mine)
        exchange_seconds /= self._ranks.world_size
        values = {
            "loss": loss / self._steps,
            "tokens_per_second": self._target_tokens / window,
            "distinct_id_ratio": distinct_ids / ids,
            "exchange_seconds": exchange_seconds / self._steps,
            "exchange_share": exchange_seconds / window,
        }
        self.restart()
        return Report(values, clock, window)
