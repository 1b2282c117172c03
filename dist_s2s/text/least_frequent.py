"""Which ids have the lowest counts: a priority queue that takes many ids at a time."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class LeastFrequent:
    """Gives ids in order of (count, id), lowest first, while counts rise.

    An entry is an integer, count · 2^bits + id, with the count at the time of entering. Entries lie in sorted runs, of
    which a new one is merged with those before it until each is at least twice as long as the next: the logarithmic
    method of Bentley and Saxe 1980, "Decomposable searching problems I". So there are O(log V) runs, and an entry is
    merged O(log V) times. A count that rises leaves its entry behind, as a lower bound; only when it comes to the front
    is it put right, at most once for each rise. Entering or taking an id thus costs amortized O(log V), in array
    operations over all ids of a call.

    Args:
        counts: int64 [V] by id, which the caller changes; they may rise at any time.
    """

    def __init__(self, counts: Ints) -> None:
        self._counts = counts
        self._bits = max(1, len(counts) - 1).bit_length()
        self._runs: list[Ints] = []  # of entries, ascending

    def restart(self, ids: Ints) -> None:
        """Forget all entries and enter these ids, as is due when counts have fallen."""
        self._runs = [np.sort(self._entries(ids))] if len(ids) else []

    def add(self, ids: Ints) -> None:
        """Enter ids that are not in the queue, with their present counts."""
        self._merge(self._entries(ids))

    def lowest_count(self) -> int:
        """Return a lower bound of the counts of all ids in the queue, which must not be empty."""
        return min(int(run[0]) for run in self._runs) >> self._bits

    def take(self, number: int) -> Ints:
        """Remove the ``number`` ids of the lowest (count, id), or all if there are fewer, and return them in order."""
        taken: list[Ints] = []
        while number > 0 and self._runs:
            entries = self._take_entries(number)
            present = self._entries(entries & (1 << self._bits) - 1)
            is_right = entries == present
            taken.append(entries[is_right])
            number -= len(taken[-1])
            self._merge(present[~is_right])
        if not taken:
            return np.empty(0, dtype=np.int64)
        return np.sort(np.concatenate(taken)) & (1 << self._bits) - 1

    def _entries(self, ids: Ints) -> Ints:
        return (self._counts[ids] << self._bits) | ids

    def _take_entries(self, number: int) -> Ints:
        """Remove the lowest entries of all runs, whether or not they are up to date."""
        lowest = np.concatenate([run[:number] for run in self._runs])
        if len(lowest) > number:
            lowest = np.partition(lowest, number - 1)[:number]
        end = lowest.max()
        rests = (run[np.searchsorted(run, end, side="right") :] for run in self._runs)
        self._runs = [rest for rest in rests if len(rest)]
        return lowest

    def _merge(self, entries: Ints) -> None:
        run = np.sort(entries)
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            # Measured: a stable sort, which finds the two runs, merges them faster than another sorts them.
            run = np.sort(np.concatenate((self._runs.pop(), run)), kind="stable")
        if len(run):
            self._runs.append(run)
