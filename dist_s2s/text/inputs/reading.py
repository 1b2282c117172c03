"""All pairs of some inputs, in memory, with an account of what is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dist_s2s import UserError
from dist_s2s.text.inputs.block import BadLine, Pair
from dist_s2s.text.inputs.recognise import open_inputs, split_inputs

EXAMPLES = 3
BAD_LINE_LIMIT = 1000  # no more are counted, unless they are to be skipped
_SHOWN_PATHS = 8  # an unpacked package has thousands
_ADVICE = "mend {0}, or give --data.skip_bad_lines true to leave {0} out"


@dataclass
class BadLines:
    """What is no pair, by file and kind: how many, and the first of them.

    ``skip``: whether they are left out; None: they are not, and there is no setting for it that could be advised.
    """

    skip: bool | None = False
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    examples: dict[tuple[str, str], list[BadLine]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many there are of all kinds."""
        return sum(self.counts.values())

    def add(self, lines: Iterable[BadLine]) -> None:
        """Count lines.

        Raises:
            UserError: there are more than `BAD_LINE_LIMIT`, and they are not to be skipped.
        """
        for line in lines:
            self._add((line.file, line.problem.partition(": ")[0]), 1, [line])
        self._check_limit()

    def merge(self, later: "BadLines") -> None:
        """Add those of a later part of the inputs; otherwise as `add`."""
        for kind, count in later.counts.items():
            self._add(kind, count, later.examples[kind])
        self._check_limit()

    def check(self) -> None:
        """Raise UserError if there are any that are not to be skipped."""
        if self.total == 1 and not self.skip:
            raise UserError(f"{self.described()[0]}; {self._advice('it')}")
        if self.total and not self.skip:
            raise UserError("\n".join([*self.described(), f"{self.total:,} in all: {self._advice('them')}"]))

    def _add(self, kind: tuple[str, str], count: int, lines: list[BadLine]) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count
        shown = self.examples.setdefault(kind, [])
        shown += lines[: EXAMPLES - len(shown)]

    def _check_limit(self) -> None:
        if self.total >= BAD_LINE_LIMIT and not self.skip:
            raise UserError(
                "\n".join([*self.described(), f"there may be more: reading ended here; {self._advice('them')}"])
            )

    def _advice(self, what: str) -> str:
        return f"mend {what}" if self.skip is None else _ADVICE.format(what)

    def described(self) -> list[str]:
        """Return a line for each kind."""
        lines = []
        for kind, count in self.counts.items():
            first, *others = self.examples[kind]
            more = f"; so do {count - 1:,} more" if count > 1 else ""
            if others:
                places = ", ".join(other.place for other in others)
                more += f" ({places}{', …' if count > EXAMPLES else ''})"
            lines.append(f"{first}{more}")
        return lines


def read_inputs(text: str, columns: str | None = None, skip_bad_lines: bool | None = False) -> list[Pair]:
    """Return the pairs (source, target) of one or several inputs, as `split_inputs` and `open_input` read their names.

    Args:
        text: the inputs' names.
        columns: see `open_input`.
        skip_bad_lines: see `BadLines.skip`.

    Raises:
        UserError: an input cannot be read, holds no pair, or has lines that are none, unless those are to be skipped.
    """
    pairs: list[Pair] = []
    for each in open_inputs(split_inputs(text), columns):
        bad = BadLines(skip_bad_lines)
        before = len(pairs)
        for block in each.blocks():
            parsed = block.parse()
            pairs += parsed.pairs
            bad.add(parsed.bad)
        bad.check()
        if len(pairs) == before:
            raise UserError(no_pairs(each.paths, bad))
    return pairs


def no_pairs(paths: Sequence[object], bad: BadLines) -> str:
    """Return what to say of an input without pairs."""
    names = ", ".join([*map(str, paths[:_SHOWN_PATHS]), *(["…"] if len(paths) > _SHOWN_PATHS else [])])
    if bad.total:
        return "\n".join([f"{names}: no line of it is a pair", *bad.described()])
    return f"{names} is empty: it has no pair"
