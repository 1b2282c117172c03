"""An estimate as text and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dist_s2s import counted
from dist_s2s.cost.calibration import Calibration
from dist_s2s.cost.layouts import Choice, reason


def to_json(found: Sequence[Choice], calibration: Calibration) -> dict[str, Any]:
    """Return the question and all figures of its answer: bytes, seconds, numbers of rows."""
    problem = found[0].problem
    names = ("num_embeddings", "embedding_dim", "ids", "skew", "optimizer", "averaged")
    return {
        **{name: getattr(problem, name) for name in names},
        **vars(problem.cluster),
        "dtype": _name(problem.dtype),
        "comm_dtype": None if problem.comm_dtype is None else _name(problem.comm_dtype),
        "calibration": {name: getattr(calibration, name) for name in ("date", "cpu", "cores", "torch")},
        "best": {"layout": problem.layout, "transport": problem.transport, "reason": reason(found)},
        "choices": [_choice_to_json(choice) for choice in found],
    }


def _choice_to_json(choice: Choice) -> dict[str, Any]:
    asked = choice.problem.asked
    return {
        "layout": choice.problem.layout,
        "transport": choice.problem.transport,
        "step_seconds": choice.step_seconds,
        "seconds": choice.seconds,
        "memory_per_rank": {**choice.memory, "total": sum(choice.memory.values())},
        "bytes_sent": {**choice.bytes_sent, "total": sum(choice.bytes_sent.values())},
        "distinct_ids_per_rank": float(asked.sum()),
        "requests_per_owner": {"mean": float(asked.sum()), "most": float(choice.problem.requests.max())},
    }


def to_text(found: Sequence[Choice], calibration: Calibration) -> str:
    """Return the question, what each choice costs, which is best, and what its costs consist of."""
    best, problem, cluster = found[0], found[0].problem, found[0].problem.cluster
    travel = "" if problem.comm_dtype is None else f", which travel in {_name(problem.comm_dtype)}"
    where = "one host" if cluster.hosts == 1 else f"{cluster.hosts:,} hosts"
    network = f"; between hosts {cluster.bandwidth / 1e9:g} GB/s and {cluster.latency * 1e6:g} µs"
    rows = [("layout", "transport", "step", "busiest owner", "sent", "memory")]
    for choice in found:
        sent, memory = (_size(sum(parts.values())) for parts in (choice.bytes_sent, choice.memory))
        busiest = f"{choice.imbalance:.2f} × average"
        time = _time(choice.step_seconds)
        rows.append((choice.problem.layout, choice.problem.transport, time, busiest, sent, memory))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        [
            f"{counted(problem.num_embeddings, 'row')} × {problem.embedding_dim} in {_name(problem.dtype)}{travel}",
            f"{counted(cluster.ranks, 'rank')} on {where} of {counted(cluster.cores, 'core')}"
            f"{network if cluster.hosts > 1 else ''}",
            f"a rank's step: {counted(problem.ids, 'id')} of skew {problem.skew:g}, {problem.asked.sum():,.0f} "
            f"distinct; {problem.optimizer}{', and averages of the rows' if problem.averaged else ''}",
            f"calibration: {calibration.cpu}, {counted(calibration.cores, 'core')}, "
            f"torch {calibration.torch}, {calibration.date}",
            "",
            *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
            "",
            f"Best: {problem.layout}, {problem.transport}. {reason(found)}",
            "",
            _parts("memory per rank", {name: _size(value) for name, value in best.memory.items()}),
            _parts("sent by the busiest rank", {name: _size(value) for name, value in best.bytes_sent.items()}),
            _parts("time of a step", {name: _time(value) for name, value in best.seconds.items()}),
            "",
            "Times are an order of magnitude: expect them to be off by a factor of 1.5 to 2.",
        ]
    )


def _parts(title: str, values: Mapping[str, str]) -> str:
    named = [f"{name.replace('_', ' ')} {value}" for name, value in values.items()]
    return f"{title}: {', '.join(named)}"


def _size(number: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.2f} GiB"


def _time(seconds: float) -> str:
    """Return milliseconds with two digits: more would promise too much."""
    return f"{round(float(f'{seconds * 1e3:.2g}'), 2):,g} ms"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
