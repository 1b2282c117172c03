"""The ways to lay out a table and to move its rows, what each costs, and which is best."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dist_s2s import UserError
from dist_s2s.cost.coefficients import Coefficients
from dist_s2s.cost.memory import BytesSent, Memory, bytes_sent, mailbox_capacity, memory
from dist_s2s.cost.problem import LAYOUTS, Moves, Problem
from dist_s2s.cost.step_time import StepTime, step_time
from dist_s2s.sharded.mailboxes import HALF_BYTES

_SAME = 1.01  # times that differ by less are called the same


@dataclass(frozen=True)
class Choice:
    """A layout and a transport, as ``problem`` names them, and what they cost."""

    problem: Problem
    memory: Memory
    bytes_sent: BytesSent
    time: StepTime

    @property
    def requests(self) -> float:
        """Rows that all ranks together ask of the owner that is asked for most."""
        return float(self.problem.traffic.requests.max())

    @property
    def imbalance(self) -> float:
        """The same in proportion to the average owner."""
        return self.requests / self.problem.traffic.distinct

    def to_json(self) -> dict[str, Any]:
        """All figures, by name: bytes, seconds, and numbers of ids."""
        traffic = self.problem.traffic
        return {
            "layout": self.problem.layout,
            "transport": self.problem.moves,
            "step_seconds": self.time.total,
            "seconds": asdict(self.time),
            "memory_per_rank": {**asdict(self.memory), "total": self.memory.total},
            "bytes_sent": {**asdict(self.bytes_sent), "to_others": self.bytes_sent.to_others},
            "distinct_ids_per_rank": traffic.distinct,
            "requests_per_owner": {"mean": traffic.distinct, "most": self.requests},
            "rows_updated_per_owner": {"mean": float(traffic.touched.mean()), "most": float(traffic.touched.max())},
        }


def possible_transports(problem: Problem, asked: Moves | None) -> list[Moves]:
    """Of which one is asked for, or all that ``problem`` allows. Raises UserError if the one asked for is not."""
    too_large = mailbox_capacity(problem) > HALF_BYTES
    if problem.cluster.hosts > 1 or too_large:
        if asked == "shared_memory":
            why = (
                f"a step's gradients do not fit into a mailbox of {HALF_BYTES} bytes"
                if too_large
                else (f"ranks on {problem.cluster.hosts} hosts do not share memory")
            )
            raise UserError(f"transport shared_memory is not possible: {why}; use auto or collective")
        return ["collective"]
    return ["shared_memory", "collective"] if asked is None else [asked]


def choices(problem: Problem, asked: Moves | None, known: Coefficients) -> list[Choice]:
    """Every layout with every transport that is possible, or with the one ``asked`` for; the best first."""
    problems = [
        replace(problem, layout=layout, moves=moves)
        for moves in possible_transports(problem, asked)
        for layout in LAYOUTS
    ]
    found = [
        Choice(each, memory(each, known.process_bytes), bytes_sent(each), step_time(each, known)) for each in problems
    ]
    fastest = min(choice.time.total for choice in found)
    # Of those that are as good as the fastest the most even one, and if all are even the first, of the simpler layout.
    as_good = [choice for choice in found if choice.time.total <= fastest * _SAME]
    best = min(as_good, key=lambda choice: round(choice.imbalance, 1))
    return sorted(found, key=lambda choice: (choice is not best, choice.time.total))


def reason(found: Sequence[Choice]) -> str:
    """Why the first of all choices is the best: a sentence on its layout, and one on its transport."""
    best = found[0]
    return f"{_about_layout(best, found)} {_about_transport(best, found)}"


def _about_layout(best: Choice, found: Sequence[Choice]) -> str:
    other = next(
        each for each in found if each.problem == replace(best.problem, layout=each.problem.layout) and each is not best
    )
    slower = other.time.total / best.time.total
    if best.problem.cluster.ranks == 1:
        return "One rank owns all rows, so layouts do not differ."
    if slower < _SAME:
        return f"With {other.problem.layout} a step takes the same time."
    return (
        f"With {other.problem.layout} the busiest owner is asked for {other.imbalance:.1f} times as many rows as the "
        f"average one ({best.problem.layout}: {best.imbalance:.1f}), and a step takes {slower:.1f} times as long."
    )


def _about_transport(best: Choice, found: Sequence[Choice]) -> str:
    others = [each for each in found if each.problem.moves != best.problem.moves]
    if best.problem.cluster.ranks == 1:
        return "Nothing travels."
    if best.problem.cluster.hosts > 1:
        return "Rows travel by collectives, because ranks of several hosts share no memory."
    if not others:
        return f"Rows travel by {best.problem.moves}, the only transport that was to be looked at."
    slower = min(each.time.total for each in others) / best.time.total
    return f"With the transport {others[0].problem.moves} a step takes {slower:.1f} times as long at best."
