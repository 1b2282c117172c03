"""What a run has told in metrics.jsonl so far: its curves, and where the time of its latest steps went."""

import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from dist_s2s.storage.metrics import METRICS, MetricsReader

Points = list[tuple[int, float]]  # (step, value), finite ones
Figures = dict[str, list[float]]  # by name, a value for each rank; see training.performance

CURVES = ("loss", "valid_loss", "valid_bleu", "valid_chrf", "tokens_per_second")
RECENT = 10  # reports that the ranks' figures on the screen are the means of
_NEEDED = {
    *("step_seconds", "data_seconds", "waited_seconds"),
    *("bytes_sent", "ids", "distinct_ids", "rows_served", "memory_bytes"),
}


class RunHistory:
    """The figures of a run, which may still be written.

    Args:
        run_dir: of the run.
        recent: so many latest reports are kept of the ranks' figures; None for all.

    Attributes:
        curves: the points of each of CURVES.
        latest: the newest value of every other figure, and of these, by name.
    """

    def __init__(self, run_dir: Path, recent: int | None = RECENT) -> None:
        self._recent: deque[Figures] = deque(maxlen=recent)
        self._reader = MetricsReader(run_dir / METRICS)
        self._forget()

    @property
    def damaged(self) -> int:
        """How many lines could not be read."""
        return self._reader.damaged

    def read(self) -> None:
        """Take in what has been written since the last time."""
        lines, is_whole = self._reader.new_lines()
        if is_whole:
            self._forget()
        for line in lines:
            self._add(line)

    def ranks(self) -> Figures:
        """Return each rank's figures, means of the reports that are kept; nothing if there are none."""
        count = len(self._recent)
        return {
            name: [sum(values) / count for values in zip(*(each[name] for each in self._recent), strict=True)]
            for name in (self._recent[-1] if self._recent else ())
        }

    def _forget(self) -> None:
        self.curves: dict[str, Points] = {name: [] for name in CURVES}
        self.latest: dict[str, float] = {}
        self._recent.clear()

    def _add(self, line: dict[str, Any]) -> None:
        numbers = {name: value for name, value in line.items() if _is_number(value)}
        self.latest |= numbers
        for name in CURVES:
            if name in numbers:
                self.curves[name].append((line["step"], numbers[name]))
        ranks = line.get("ranks")
        if _is_figures(ranks):
            if self._recent and _shape(ranks) != _shape(self._recent[-1]):
                self._recent.clear()  # it goes on with other ranks
            self._recent.append(ranks)


def findings(ranks: Figures) -> list[str]:
    """Say in words what a step takes its time for, which rank is waited for, and which owner is hot.

    Args:
        ranks: what ``RunHistory.ranks`` returns, not empty.
    """
    step, waits, served = (ranks[name] for name in ("step_seconds", "waited_seconds", "rows_served"))
    shares = {part: _mean(ranks[f"{part}_seconds"]) / _mean(step) for part in parts_of(ranks)}
    largest = max(shares, key=lambda part: shares[part])
    lines = [f"{largest} takes most of a step: {shares[largest]:.0%}"]
    if shares["data"] > 0.1 and largest != "data":
        lines.append(f"batches come late: ranks wait for them for {shares['data']:.0%} of a step")
    if len(waits) > 1:
        slow = waits.index(min(waits))
        others = _mean([wait for rank, wait in enumerate(waits) if rank != slow])
        if others - waits[slow] > 0.05 * _mean(step):
            lines.append(
                f"rank {slow} is slow: the others wait for {others / _mean(step):.0%} of a step, and it for "
                f"{waits[slow] / _mean(step):.0%}"
            )
        hot, load = hottest(served)
        if load > 1.25:
            lines.append(
                f"owner {hot} is hot: it serves {served[hot] / sum(served):.0%} of the rows, {load:.2f} times an even "
                "share; see embedding.layout"
            )
    return lines


def parts_of(ranks: Figures) -> list[str]:
    """Return the parts of a step, in their order."""
    whole = ("step_seconds", "waited_seconds")
    return [name.removesuffix("_seconds") for name in ranks if name.endswith("_seconds") and name not in whole]


def hottest(served: Sequence[float]) -> tuple[int, float]:
    """Return the owner that serves most rows, and its load as a multiple of an even share; 0 if nobody serves any."""
    hot = served.index(max(served))
    return hot, served[hot] / _mean(served) if any(served) else 0.0


def _is_figures(ranks: object) -> TypeGuard[Figures]:
    """Tell whether a line has what is shown of the ranks."""
    return (
        isinstance(ranks, dict)
        and ranks.keys() >= _NEEDED
        and all(isinstance(values, list) and values for values in ranks.values())
        and len({len(values) for values in ranks.values()}) == 1
        and all(_is_number(value) for values in ranks.values() for value in values)
        and min(ranks["step_seconds"]) > 0
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # which NaN is not


def _shape(ranks: Figures) -> list[tuple[str, int]]:
    return [(name, len(values)) for name, values in ranks.items()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
