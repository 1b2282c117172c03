"""What became of the pairs of a corpus: how many were left out, why, and examples."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dist_s2s import counted

EXAMPLES = 3
_SHOWN = 100  # characters of an example

REASONS = {
    "length": "longer than data.max_length, or without a token",
    "ratio": "one side much longer than the other",
    "identical": "both sides the same",
    "duplicates": "the pair occurs before",
    "script": "a side mostly in another script than the rest",
    "leaks": "a side occurs in the validation or test data",
}


@dataclass
class Dropped:
    """Pairs that a filter left out, by its name: how many, and the first of them as lines of a TSV file."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, count: int, lines: Iterable[str]) -> None:
        """Add pairs that come after those before."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        shown = self.examples.setdefault(reason, [])
        for line in lines:
            if len(shown) == EXAMPLES:
                break
            shown.append(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")

    def merge(self, later: "Dropped") -> None:
        """Add what was left out of a later part of the corpus."""
        for reason, count in later.counts.items():
            self.add(reason, count, later.examples[reason])


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return the report of a manifest as a person reads it."""
    lines = [*report["inputs"]]
    lines.append(
        f"{counted(report['lines'], 'line')} read, {counted(report['bad'], 'of them is', 'of them are')} no pair"
    )
    lines += [f"  {line}" for line in report["bad_lines"]]
    for reason, count in report["dropped"].items():
        lines.append(f"{counted(count, 'pair')} left out by the filter {reason}: {REASONS[reason]}")
        lines += [f"  {line!r}" for line in report["examples"][reason]]
    pairs = report["pairs"]
    lines.append(
        f"{counted(pairs['train'], 'pair')} for training, {pairs['valid']:,} for validation, "
        f"{pairs['test']:,} for the test"
    )
    return lines
