"""How many words per second a full DynamicVocabulary replaces, and how many words of a stream it counts.

    python benchmarks/vocabulary_bench.py --max_size 1000000

``replaced``: every word of an update is new and frequent enough, so each of them takes the place of another.
``stream``: words drawn from a Zipf distribution over five times as many words as there is room for, one occurrence
after the other; counting them into the update's mapping is part of the time. ``one by one``: replacements by a search
through all words for each, as in the sketch that the class began as. ``looked up``: new words in a dict of the same
size, the floor for anything that keeps its words in one. Medians of interleaved repetitions, in time of the one thread
that works, which other processes slow down less than that on the wall.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import repeat
from statistics import median

import numpy as np

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import print_table, write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary
from dist_s2s.text.vocabulary import SPECIALS


class Contenders:
    """A full vocabulary, and what is done to it; each method returns how many words it has handled."""

    def __init__(self, max_size: int, update_size: int) -> None:
        """Fill the vocabulary with words that have been counted once."""
        self._update_size, self._round = update_size, 0
        self._vocabulary = DynamicVocabulary(max_size)
        words = [f"old{number}" for number in range(max_size - len(SPECIALS))]
        self._vocabulary.update(dict.fromkeys(words, 1))
        self._frequency = dict.fromkeys(words, 1)
        self._generator = np.random.default_rng(1)
        self._shares = np.cumsum(1.0 / np.arange(1, 5 * max_size))

    def prepare(self) -> None:
        """Make the words of the next round, outside of the time that is taken."""
        self._round += 1
        self._new = [f"new{self._round}-{number}" for number in range(self._update_size)]
        drawn = np.searchsorted(self._shares, self._generator.random(10 * self._update_size) * self._shares[-1])
        self._occurrences = [f"word{number}" for number in drawn.tolist()]

    def replaced(self) -> int:
        """Replace as many words as an update has."""
        changes = self._vocabulary.update(dict.fromkeys(self._new, 2**self._round))
        assert len(changes) == self._update_size
        return len(changes)

    def stream(self) -> int:
        """Count occurrences, and admit what has become frequent."""
        self._vocabulary.update(Counter(self._occurrences))
        return len(self._occurrences)

    def one_by_one(self) -> int:
        """Replace a few words by a search for the least frequent each."""
        for word in self._new[:3]:
            del self._frequency[min(self._frequency, key=self._frequency.__getitem__)]
            self._frequency[word] = 2
        return 3

    def looked_up(self) -> int:
        """Look new words up in a dict, with hashes that have not been computed yet."""
        words = [word + "x" for word in self._new]
        np.fromiter(map(self._frequency.get, words, repeat(0)), np.int64, len(words))
        return len(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    contenders = Contenders(options.max_size, options.update_size)
    runs: dict[str, Callable[[], int]] = {
        "replaced": contenders.replaced,
        "stream": contenders.stream,
        "one by one": contenders.one_by_one,
        "looked up": contenders.looked_up,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repetitions):
        contenders.prepare()
        for name, run in runs.items():
            start = time.thread_time()
            words = run()
            seconds[name].append((time.thread_time() - start) / words)
    rates = {name: 1 / median(times) for name, times in seconds.items()}
    title = f"{options.max_size:,} ids, updates of {options.update_size:,} words, one thread"
    print_table(title, ("",), ("words/s",), ([name, f"{rate:,.1f}"] for name, rate in rates.items()))
    write_results(options.json, {"settings": settings_of(options), "words_per_second": rates})
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--max_size", type=positive, default=1_000_000, help="ids of the vocabulary")
    parser.add_argument("--update_size", type=positive, default=20_000, help="words of an update")
    parser.add_argument("--repetitions", type=positive, default=11)
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if options.update_size > options.max_size // 2:
        parser.error(f"--update_size must be at most half of --max_size, but is {options.update_size}")
    return options


if __name__ == "__main__":
    run_command(main)
