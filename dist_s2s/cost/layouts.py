"""Compare the ways to lay out a table and to move its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dist_s2s.cost.calibration import Calibration
from dist_s2s.cost.problem import LAYOUTS, TRANSPORTS, Problem, TransportName
from dist_s2s.cost.seconds import step_seconds
from dist_s2s.cost.volume import bytes_sent, memory

_SAME = 1.1  # times that differ by less are called the same


@dataclass(frozen=True)
class Choice:
    """A layout and a transport, those of ``problem``, and what they cost: bytes and seconds, itemized."""

    problem: Problem
    memory: dict[str, float]
    bytes_sent: dict[str, float]
    seconds: dict[str, float]

    @property
    def step_seconds(self) -> float:
        """The time of the whole step."""
        return sum(self.seconds.values())

    @property
    def imbalance(self) -> float:
        """The requests of the busiest owner, relative to those of the average one."""
        return float(self.problem.requests.max() / self.problem.requests.mean())


def compare(problem: Problem, transport: TransportName | None, calibration: Calibration) -> list[Choice]:
    """Return every layout with every possible transport, or with ``transport`` alone; the best comes first.

    Raises:
        UserError: ``transport`` is not possible.
    """
    possible = TRANSPORTS if problem.cluster.hosts == 1 else TRANSPORTS[1:]
    found = []
    for moves in (transport,) if transport else possible:
        for layout in LAYOUTS:
            each = replace(problem, layout=layout, transport=moves)
            seconds = step_seconds(each, calibration.coefficients)
            found.append(Choice(each, memory(each, calibration.process_bytes), bytes_sent(each), seconds))
    fastest = min(choice.step_seconds for choice in found)
    # Of those as good as the fastest the most even one; if all are even the first, which has the simpler layout.
    as_good = [choice for choice in found if choice.step_seconds <= fastest * _SAME]
    best = min(as_good, key=lambda choice: round(choice.imbalance, 1))
    return sorted(found, key=lambda choice: (choice is not best, choice.step_seconds))


def reason(found: Sequence[Choice]) -> str:
    """Return why the first of all choices is the best."""
    best, problem = found[0], found[0].problem
    if problem.cluster.ranks == 1:
        return "One rank owns all rows, and nothing travels."
    [other] = [each for each in found[1:] if each.problem.transport == problem.transport]
    slower = other.step_seconds / best.step_seconds
    as_long = "about the same time" if slower < _SAME else f"about {slower:.1f} times as long"
    sentences = [
        f"With {other.problem.layout} a step takes {as_long}: the busiest owner is asked for "
        f"{other.imbalance:.1f} times as many rows as the average one ({problem.layout}: {best.imbalance:.1f})."
    ]
    others = [each for each in found if each.problem.transport != problem.transport]
    if others:
        slower = min(each.step_seconds for each in others) / best.step_seconds
        sentences.append(f"With {others[0].problem.transport} it takes about {slower:.1f} times as long at best.")
    return " ".join(sentences)
