"""A rank's part in lookup_bench.py: builds the contenders, compares what they compute, and times them in turns."""

import gc
import math
import time
from collections.abc import Sequence
from typing import NamedTuple, TypedDict, get_args

import torch
import torch.distributed as dist

from common.collectives import collectives
from common.devices import synchronize
from dist_s2s.cost.ranks import start_together
from lookup.lineup import FLOOR, SYSTEMS, build
from lookup.problem import Batch, Contender, Problem, Update, draw_batch
from lookup.reference import difference, expect

MOST_STEPS = 10  # of a contender in one turn
_TURN_SECONDS = 0.5  # in which a contender takes as many steps as fit; if none does, it sits out some turns
_FEWEST_TURNS = 3


class Timing(TypedDict):
    """When each step of a contender began, had looked up and ended on one rank, and its exchanges in a step.

    Moments are seconds of the host's clock, which all ranks share.
    """

    began: list[float]
    looked_up: list[float]
    ended: list[float]
    collectives: int
    bytes_sent: int


class RankResult(TypedDict):
    """What one rank found: ``differences`` by update and name, ``timings`` by name."""

    differences: dict[str, dict[str, float]]
    timings: dict[str, Timing]


class Pace(NamedTuple):
    """A contender takes ``steps`` steps in every ``period``-th turn."""

    steps: int
    period: int


def race(group: dist.ProcessGroup, names: Sequence[str], problem: Problem, repetitions: int) -> RankResult:
    """Compare and time the contenders in turns, ``repetitions`` of them (collective)."""
    running, differences = compare(names, problem, group)
    paces = {name: warm_up(contender, problem, repetitions, group) for name, contender in running.items()}
    timings: dict[str, Timing] = {}
    for name, contender in running.items():
        calls, sent = traffic(contender, problem, group)
        timings[name] = Timing(began=[], looked_up=[], ended=[], collectives=calls, bytes_sent=sent)
    names = list(running)
    for turn in range(repetitions):
        first = turn % len(names)  # so that each comes after others in its turn, whose traces a cache has
        for name in names[first:] + names[:first]:
            contender = running[name]
            if turn % paces[name].period:
                continue
            for number in range(paces[name].steps):
                # Each contender meets the same ids in the same turn, and new ones in each step.
                batch = draw_batch(problem, dist.get_rank(group), (turn + 1) * MOST_STEPS + number)
                moments = timed_step(contender, batch, group)
                for key, moment in zip(("began", "looked_up", "ended"), moments, strict=True):
                    timings[name][key].append(moment)  # type: ignore[literal-required]
    return {"differences": differences, "timings": timings}


def compare(
    names: Sequence[str], problem: Problem, group: dist.ProcessGroup
) -> tuple[dict[str, Contender], dict[str, dict[str, float]]]:
    """Build all contenders and let each train with every optimizer that it has (collective).

    The floor computes something else, and is not compared.

    Returns:
        The contenders with the optimizers that are raced, and by update and name how far their rows are off.
    """
    expected = {update: expect(problem, update, group) for update in get_args(Update)}
    running: dict[str, Contender] = {}
    differences: dict[str, dict[str, float]] = {update: {} for update in expected}
    for name in names:
        for update in SYSTEMS[name].updates:
            running.pop(name, None)
            gc.collect()  # the table of the update before: there may be no room for two
            running[name] = build(name, update, problem, group)
            if name != FLOOR:
                differences[update][name] = difference(running[name], expected[update], problem, group)
    return running, differences


def warm_up(contender: Contender, problem: Problem, repetitions: int, group: dist.ProcessGroup) -> Pace:
    """Return the contender's pace, found by a step, after as many steps as it will take in a turn (collective)."""
    batch = draw_batch(problem, dist.get_rank(group), 0)
    began, _, ended = timed_step(contender, batch, group)
    slowest = torch.tensor(ended - began, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX, group=group)
    pace = pace_of(float(slowest), repetitions)
    for _ in range(pace.steps):
        contender.step(batch)
    return pace


def pace_of(seconds: float, repetitions: int) -> Pace:
    """Return the pace of a contender whose step takes ``seconds``."""
    steps = min(MOST_STEPS, max(1, int(_TURN_SECONDS / seconds)))
    most = max(1, (repetitions - 1) // (_FEWEST_TURNS - 1))
    return Pace(steps, min(most, math.ceil(seconds / _TURN_SECONDS)))


def traffic(contender: Contender, problem: Problem, group: dist.ProcessGroup) -> tuple[int, int]:
    """Return how many collectives one step takes, and how many bytes this rank gives them (collective)."""
    batch = draw_batch(problem, dist.get_rank(group), 0)
    if contender.statistics is None:
        with collectives() as sent:
            contender.step(batch)
        return len(sent), sum(sent)
    contender.statistics.reset()
    contender.step(batch)
    return contender.statistics.collectives, contender.statistics.bytes_sent


def timed_step(contender: Contender, batch: Batch, group: dist.ProcessGroup) -> tuple[float, float, float]:
    """Train one step (collective); return when it began, when rows were looked up, and when it ended."""
    device = batch.ids.device.type
    ids, gradient = contender.prepare(batch.ids), batch.gradient * contender.gradient_scale
    synchronize(device)
    start_together(group)
    began = time.perf_counter()
    rows = contender.lookup(ids)
    synchronize(device)
    looked_up = time.perf_counter()
    rows.backward(gradient)
    contender.update()
    synchronize(device)
    return began, looked_up, time.perf_counter()
