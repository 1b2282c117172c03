"""Finds the coefficients with which the model is nearest to what ranks have measured."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from dist_s2s.cost.coefficients import Coefficients, PartCost, TransportCost
from dist_s2s.cost.id_traffic import Floats
from dist_s2s.cost.measure import RankResult, Timing
from dist_s2s.cost.problem import OPTIMIZERS, TRANSPORTS, Moves, Problem
from dist_s2s.cost.ranks import seconds_of_all
from dist_s2s.cost.step_time import part_messages, step_time
from dist_s2s.cost.work import Work, part_works

_CACHE_SIZES = [2.0**power for power in range(20, 30)]  # that are tried, bytes


def fit(asked: Sequence[Problem], answers: Sequence[RankResult]) -> Coefficients:
    """The coefficients with which the model is nearest to what ranks have measured."""
    timings = [
        [timing for answer in answers if (timing := answer["timings"][number]) is not None]
        for number in range(len(asked))
    ]
    measured = list(zip(asked, timings, strict=True))
    # A part's own work: where ranks had cores of their own, or else as few as there were.
    fewest = [
        (problem, of_ranks)
        for problem, of_ranks in measured
        if problem.cluster.ranks == min(each.cluster.ranks for each in asked)
    ]
    fitted = [_fit_parts(fewest, size) for size in _CACHE_SIZES]
    best = min(range(len(fitted)), key=lambda number: fitted[number][1])
    parts, cache_bytes = fitted[best][0], _CACHE_SIZES[best]
    known = Coefficients(
        transports={
            moves: TransportCost(
                parts.get(f"plan {moves}", PartCost()), parts[f"rows {moves}"], parts[f"gradients {moves}"]
            )
            for moves in TRANSPORTS
        },
        update={name: parts[name] for name in OPTIMIZERS},
        crowded=1.0,
        crowded_element=1.0,
        cache_bytes=cache_bytes,
        process_bytes=float(np.median([answer["process_bytes"] for answer in answers])),
    )
    known = _fit_exchanges("shared_memory", measured, known)
    return _fit_exchanges("collective", measured, known)


def _fit_parts(
    measured: Sequence[tuple[Problem, list[Timing]]], cache_bytes: float
) -> tuple[dict[str, PartCost], float]:
    """The cost of each part with each transport and of each optimizer, if the cache has this size.

    Also returns the sum of squares of what is left.
    """
    of_parts: dict[str, list[tuple[dict[str, float], float]]] = {}  # work and seconds of each problem and rank
    for problem, of_ranks in measured:
        works = {f"{name} {problem.moves}": work for name, work in part_works(problem, cache_bytes).items()}
        works |= {name: part_works(replace(problem, optimizer=name), cache_bytes)["update"] for name in OPTIMIZERS}
        for rank, timing in enumerate(of_ranks):
            for name, seconds in timing["parts"].items():
                full_name = name if name in OPTIMIZERS else f"{name} {problem.moves}"
                of_part = of_parts.setdefault(full_name, [])
                of_part.append((_amounts(works[full_name], rank), float(np.median(seconds))))
    costs, left = {}, 0.0
    for name, of_part in of_parts.items():
        columns = [field.name for field in fields(PartCost) if any(amounts.get(field.name) for amounts, _ in of_part)]
        matrix = [[amounts.get(column, 0.0) for column in columns] for amounts, _ in of_part]
        solution, rest = solve(matrix, [seconds for _, seconds in of_part])
        costs[name] = PartCost(**dict(zip(columns, solution, strict=True)))
        left += rest
    return costs, left


def _amounts(work: Work, rank: int) -> dict[str, float]:
    """What one rank's coefficients are multiplied by."""
    amounts = {name: float(amount) for name, amount in work.of_ids.items()}
    for name, of_ranks in work.of_owners.items():
        amounts[name] = amounts.get(name, 0.0) + float(of_ranks[rank])
    return amounts


def _fit_exchanges(moves: Moves, measured: Sequence[tuple[Problem, list[Timing]]], known: Coefficients) -> Coefficients:
    """Known coefficients and those of the transport's exchanges, from what its steps take beyond their work.

    With shared memory also ``crowded`` and ``crowded_element``, since work is all that takes longer there.
    """
    shared, of_transport = moves == "shared_memory", [each for each in measured if each[0].moves == moves]
    names = ["fixed", "switch", *(["crowded", "crowded_element"] if shared else ["byte"])]
    peer = _peer_seconds(of_transport)

    def with_values(values: Mapping[str, float]) -> Coefficients:
        fixed, switch, byte = (values.get(name, 0.0) for name in ("fixed", "switch", "byte"))
        cost = replace(known.transports[moves], fixed=fixed, peer=peer, switch=switch, byte=byte)
        return replace(
            known,
            transports=known.transports | {moves: cost},
            crowded=known.crowded + values.get("crowded", 0.0),
            crowded_element=known.crowded_element + values.get("crowded_element", 0.0),
        )

    without, units = with_values({}), [with_values({name: 1.0}) for name in names]
    columns, left, of_all = [], [], []
    for problem, of_ranks in of_transport:
        began, ended = [timing["began"] for timing in of_ranks], [timing["ended"] for timing in of_ranks]
        seconds = float(np.median(seconds_of_all(began, ended)))
        work = step_time(problem, without).total
        columns.append([step_time(problem, unit).total - work for unit in units])
        left.append(seconds - work)
        of_all.append(seconds)
    solution, _ = solve(columns, left, of_all)
    return with_values(dict(zip(names, solution, strict=True)))


def _peer_seconds(measured: Sequence[tuple[Problem, list[Timing]]]) -> float:
    """Of an exchange, what a rank works for each other one, from the least step of the fewest and of the most ranks."""
    counts = [problem.cluster.ranks for problem, _ in measured]
    processor: list[float] = []
    for ranks in (min(counts), max(counts)):
        of_size = [each for each in measured if each[0].cluster.ranks == ranks]
        problem, of_ranks = min(of_size, key=lambda each: each[0].ids * each[0].embedding_dim)
        processor.append(float(np.median([timing["processor"] for timing in of_ranks])))
    exchanges = sum(len(messages) for messages in part_messages(problem).values())
    return max(0.0, (processor[1] - processor[0]) / exchanges / (max(counts) - min(counts)))


def solve(
    columns: Sequence[Sequence[float]], seconds: Sequence[float], scale: Sequence[float] | None = None
) -> tuple[list[float], float]:
    """Coefficients, none negative, of the columns that give ``seconds``, and the sum of squares of what is left.

    What is left counts relative to ``scale``, by default the seconds themselves. Coefficients that would be negative
    are 0, the most negative first.
    """
    weights = 1 / np.array(seconds if scale is None else scale)
    matrix: Floats = np.array(columns) * weights[:, None]
    target: Floats = np.array(seconds) * weights
    sizes = np.linalg.norm(matrix, axis=0)  # so that columns of different units are solved with the same care
    sizes[sizes == 0] = 1
    solution = np.zeros(matrix.shape[1])
    kept = list(range(matrix.shape[1]))
    while kept:
        found = np.linalg.lstsq(matrix[:, kept] / sizes[kept], target, rcond=None)[0]
        if found.min() >= 0:
            solution[kept] = found / sizes[kept]
            break
        kept.pop(int(found.argmin()))
    rest = matrix @ solution - target
    return solution.tolist(), float(rest @ rest)
