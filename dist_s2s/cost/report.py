"""An estimate as tables for people, and as JSON."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dist_s2s.cost.choices import Choice, reason
from dist_s2s.cost.coefficients import Calibration

_GB = 10**9


def to_json(found: Sequence[Choice], calibration: Calibration) -> dict[str, Any]:
    """All figures of an estimate and what it was asked, for a JSON file: bytes, seconds, numbers of ids."""
    problem = found[0].problem
    cluster = problem.cluster
    return {
        "num_embeddings": problem.num_embeddings,
        "embedding_dim": problem.embedding_dim,
        "ids": problem.ids,
        "skew": problem.skew,
        "optimizer": problem.optimizer,
        "dtype": _name(problem.dtype),
        "comm_dtype": None if problem.comm_dtype is None else _name(problem.comm_dtype),
        "ranks": cluster.ranks,
        "hosts": cluster.hosts,
        "cores": cluster.cores,
        "bandwidth": cluster.bandwidth,
        "latency": cluster.latency,
        "calibration": {key: value for key, value in calibration.to_json().items() if key != "coefficients"},
        "best": {"layout": problem.layout, "transport": problem.moves, "reason": reason(found)},
        "choices": [choice.to_json() for choice in found],
    }


def print_estimate(found: Sequence[Choice], calibration: Calibration, console: Console) -> None:
    """The question, all choices, and what the best one costs."""
    best = found[0]
    problem = best.problem
    cluster = problem.cluster
    network = f"; between hosts {cluster.bandwidth / _GB:g} GB/s and {cluster.latency * 1e6:g} µs"
    travel = "" if problem.comm_dtype is None else f", which travel in {_name(problem.comm_dtype)}"
    where = "one host" if cluster.hosts == 1 else f"{cluster.hosts:,} hosts"
    for line in (
        f"{problem.num_embeddings:,} rows × {problem.embedding_dim} in {_name(problem.dtype)}{travel}",
        f"{cluster.ranks:,} ranks on {where} of {cluster.cores} cores{network if cluster.hosts > 1 else ''}",
        f"a rank's step: {problem.ids:,} ids of skew {problem.skew:g}, {problem.traffic.distinct:,.0f} distinct; "
        f"{problem.optimizer}",
        f"times: {calibration.cpu}, {calibration.cores} cores, torch {calibration.torch}, {calibration.date}",
    ):
        console.print(line)
    console.print()
    console.print(_choices_table(found))
    console.print(f"\nBest: {problem.layout}, {problem.moves}. {reason(found)}\n")
    for table in (_time_table(best), _memory_table(best), _bytes_table(best)):
        console.print(table, "")


def _choices_table(found: Sequence[Choice]) -> Table:
    table = _table("layout", "transport", "step", "busiest owner", "× average", "sent", "memory")
    for choice in found:
        table.add_row(
            choice.problem.layout,
            choice.problem.moves,
            f"{choice.time.total * 1e3:.2f} ms",
            f"{choice.requests:,.0f}",
            f"{choice.imbalance:.2f}",
            _size(choice.bytes_sent.to_others),
            _size(choice.memory.total),
        )
    return table


def _memory_table(choice: Choice) -> Table:
    memory = choice.memory
    table = _table("memory per rank", "bytes")
    for name, value in {
        "rows": memory.rows,
        "optimizer state": memory.optimizer_state,
        "mailboxes": memory.mailboxes,
        "tensors of a step": memory.step,
        "process": memory.process,
        "in all": memory.total,
    }.items():
        table.add_row(name, _size(value))
    return table


def _bytes_table(choice: Choice) -> Table:
    sent = choice.bytes_sent
    table = _table("sent by the busiest rank in a step", "bytes")
    for name, value in {
        "ids": sent.requests,
        "rows": sent.rows,
        "gradients": sent.gradients,
        "to others in all": sent.to_others,
        "(to itself)": sent.to_itself,
    }.items():
        table.add_row(name, _size(value))
    return table


def _time_table(choice: Choice) -> Table:
    time = choice.time
    table = _table("time of a step, ms", "work", "waiting", "latency", "transfer", "in all")
    parts = {"ids and plan": time.plan, "rows": time.rows, "gradients": time.gradients, "update": time.update}
    columns = [(part.work, part.waiting, part.latency, part.transfer, part.total) for part in parts.values()]
    for name, seconds in [*zip(parts, columns, strict=True), ("in all", tuple(map(sum, zip(*columns, strict=True))))]:
        if any(seconds):
            table.add_row(name, *(f"{value * 1e3:.2f}" for value in seconds))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _size(number: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.2f} GiB"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
