"""Times steps of DistributedEmbedding on ranks, part by part: what a calibration is fitted to."""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from dist_s2s import sharded
from dist_s2s.cost.id_traffic import IdDistribution
from dist_s2s.cost.problem import OPTIMIZERS, OptimizerName, Problem
from dist_s2s.cost.ranks import start_together
from dist_s2s.sharded.lookup import lookup_planned

_STEPS_PER_TURN = 5  # the first of which finds in the caches what another problem has left there
_ALL_OPTIMIZERS = (
    1 << 25
)  # elements of the largest table of which all optimizers are timed: all state takes 4 times that
T = TypeVar("T")


class Timing(TypedDict):
    """One problem on one rank.

    began, ended: of each step, by the host's clock, which all ranks share. processor: seconds that its threads were at
    work in each step, those of gloo too.
    parts: by name the seconds of its own work, in other steps. An optimizer's part has its name; those that are not the
    problem's have been timed beside a step.
    """

    began: list[float]
    ended: list[float]
    processor: list[float]
    parts: dict[str, list[float]]


class RankResult(TypedDict):
    """What one rank measured. process_bytes: its largest resident memory before there was a table."""

    process_bytes: int
    timings: list[Timing | None]


@dataclass(frozen=True)
class Trained:
    """A table and its optimizers, which several problems may share."""

    table: sharded.DistributedEmbedding
    optimizers: dict[OptimizerName, Optimizer]


def measure(group: dist.ProcessGroup, problems: Sequence[Problem], turns: int) -> RankResult:
    """Times each problem on the first ranks of ``group``, as many as it asks for; all take turns (collective).

    The timing of a problem in which this rank has no part is None.
    """
    rank, resident = dist.get_rank(group), _peak_resident_bytes()
    groups = {size: dist.new_group(list(range(size))) for size in sorted({each.cluster.ranks for each in problems})}
    mine = [rank < each.cluster.ranks for each in problems]
    made: dict[Problem, Trained] = {}
    timings = [Timing(began=[], ended=[], processor=[], parts={}) if takes_part else None for takes_part in mine]
    for turn in range(turns + 1):
        for problem, timing in zip(problems, timings, strict=True):
            if timing is not None:
                trained = _trained(problem, groups[problem.cluster.ranks], made)
                _take_turn(problem, trained, timing, turn)
            dist.barrier(group)  # the others' ranks must be idle meanwhile
    return RankResult(process_bytes=resident, timings=timings)


def _trained(problem: Problem, group: dist.ProcessGroup, made: dict[Problem, Trained]) -> Trained:
    """The problem's table, made if it is the first of such a problem (collective)."""
    key = replace(problem, ids=0, skew=0.0)
    if key not in made:
        table = sharded.DistributedEmbedding(
            problem.num_embeddings,
            problem.embedding_dim,
            layout=problem.layout,
            dtype=problem.dtype,
            comm_dtype=problem.comm_dtype,
            transport=problem.moves,
            process_group=group,
            seed=1,
        )
        small = problem.num_embeddings * problem.embedding_dim <= _ALL_OPTIMIZERS and problem.cluster.ranks == 2
        names = OPTIMIZERS if small else (problem.optimizer,)
        optimizers: dict[OptimizerName, Optimizer] = {
            name: getattr(sharded, name)(table.parameters(), lr=1e-3) for name in names
        }
        made[key] = Trained(table, optimizers)
    return made[key]


def _take_turn(problem: Problem, trained: Trained, timing: Timing, turn: int) -> None:
    """Some steps with new ids, timed as a whole in odd turns, else in parts; not the first, nor turn 0 (collective)."""
    untimed = Timing(began=[], ended=[], processor=[], parts={})
    for number in range(_STEPS_PER_TURN):
        table = trained.table
        generator = torch.Generator().manual_seed(1_000_003 * (turn * _STEPS_PER_TURN + number) + table.rank)
        ids = IdDistribution(problem.num_embeddings, problem.skew).draw(problem.ids, generator)
        gradient = torch.randn(problem.ids, problem.embedding_dim, generator=generator).to(problem.dtype)
        start_together(table.process_group)
        record = untimed if 0 in (turn, number) else timing
        if turn % 2:
            _time_whole(problem, trained, record, ids, gradient)
        else:  # other optimizers at the end, since they too take the caches from the step that follows
            last = number == _STEPS_PER_TURN - 1
            _time_parts(problem, trained, record, ids, gradient, all_optimizers=last)
    if turn == 0:
        _touch_state(trained)


def _time_whole(problem: Problem, trained: Trained, timing: Timing, ids: Tensor, gradient: Tensor) -> None:
    """A step as a program writes it."""
    optimizer = trained.optimizers[problem.optimizer]
    began, at_work = time.perf_counter(), time.process_time()
    trained.table(ids).backward(gradient)
    optimizer.step()
    optimizer.zero_grad()
    timing["began"].append(began)
    timing["ended"].append(time.perf_counter())
    timing["processor"].append(time.process_time() - at_work)


def _time_parts(
    problem: Problem, trained: Trained, timing: Timing, ids: Tensor, gradient: Tensor, all_optimizers: bool
) -> None:
    """A step's parts, without what they wait for others."""
    table, optimizers = trained.table, trained.optimizers

    def part(name: str, run: Callable[[], T]) -> T:
        waited, started = table.statistics.seconds, time.perf_counter()
        result = run()
        seconds = time.perf_counter() - started - (table.statistics.seconds - waited)
        timing["parts"].setdefault(name, []).append(seconds)
        return result

    if problem.in_place:
        rows = part("rows", lambda: table(ids))
    else:
        plan = part("plan", lambda: table.plan(ids))
        [rows] = part("rows", lambda: lookup_planned([table], plan))
    part("gradients", lambda: rows.backward(gradient))
    part(problem.optimizer, optimizers[problem.optimizer].step)
    for name in optimizers:
        if name != problem.optimizer and all_optimizers:
            part(name, optimizers[name].step)
    table.weight.grad = None


def _touch_state(trained: Trained) -> None:
    """State is made of pages that do not exist until they are written: in the long run all of them are."""
    for optimizer in trained.optimizers.values():
        for value in optimizer.state[trained.table.weight].values():
            if isinstance(value, Tensor):
                value.zero_()


def _peak_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
