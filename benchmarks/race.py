"""A rank's part in lookup_bench.py: builds the contenders, compares what they compute, and times them in turns."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.distributed as dist
from contenders import Contender, Kind, Problem, Update, build, draw_batch
from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """A contender of the race, and how many steps it takes when it has its turn."""

    kind: Kind
    update: Update
    steps: int = 10

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.kind}/{self.update}"


ENTRIES = (
    Entry("sharded", "RowWiseAdagrad"),
    Entry("sharded", "SGD"),
    Entry("local", "RowWiseAdagrad"),
    Entry("local", "SGD"),
    Entry("replicated", "SGD"),
    Entry("ddp", "SGD", steps=1),  # its step takes as long as a hundred of the others'
)
_MOST_STEPS = max(entry.steps for entry in ENTRIES)


class Timing(TypedDict):
    """One contender on one rank: seconds of each step, and what it hands to collectives in a step."""

    forward: list[float]
    step: list[float]
    collectives: float
    bytes_sent: float


class RankResult(TypedDict):
    """What one rank found, by Entry.key."""

    differences: dict[str, float]
    timings: dict[str, Timing]


def race(group: dist.ProcessGroup, problem: Problem, repetitions: int) -> RankResult:
    """One rank's part; all ranks of ``group`` call it together."""
    running = {entry.key: build(entry.kind, entry.update, problem, group) for entry in ENTRIES}
    # The floor computes something else, and another optimizer gives other rows.
    equals = {e.key: running[e.key] for e in ENTRIES if e.kind != "local" and e.update == "SGD"}
    differences = compare(equals, problem, group)
    timings: dict[str, Timing] = {
        key: {"forward": [], "step": [], "collectives": 0.0, "bytes_sent": 0.0} for key in running
    }
    for turn in range(repetitions + 1):
        for entry in ENTRIES:
            contender, timing = running[entry.key], timings[entry.key]
            contender.statistics.reset()
            for number in range(entry.steps):
                # Each contender meets the same ids in the same turn, and new ones in each step.
                batch = draw_batch(problem, dist.get_rank(group), turn * _MOST_STEPS + number)
                dist.barrier(group)
                forward, step = timed_step(contender, batch.ids, batch.gradient)
                if turn > 0:  # the first turn warms up
                    timing["forward"].append(forward)
                    timing["step"].append(step)
            timing["collectives"] = contender.statistics.collectives / entry.steps
            timing["bytes_sent"] = contender.statistics.bytes_sent / entry.steps
    return {"differences": differences, "timings": timings}


def timed_step(contender: Contender, ids: Tensor, gradient: Tensor) -> tuple[float, float]:
    """A step of training (collective): seconds of its lookup, and of all of it."""
    start = time.perf_counter()
    rows = contender.lookup(ids)
    looked_up = time.perf_counter()
    contender.learn(rows, gradient)
    return looked_up - start, time.perf_counter() - start


@torch.no_grad()
def compare(contenders: Mapping[str, Contender], problem: Problem, group: dist.ProcessGroup) -> dict[str, float]:
    """Lets each take one step with the same batch (collective): how far any of its rows is from the first contender's.

    Compared are the rows of this rank's ids before the update, and those of every rank's ids after it.
    """
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    batch = draw_batch(problem, rank, 0)
    all_ids = torch.cat([draw_batch(problem, peer, 0).ids for peer in range(world_size)])
    rows = {}
    for key, contender in contenders.items():
        with torch.enable_grad():
            before = contender.lookup(batch.ids)
            contender.learn(before, batch.gradient)
        rows[key] = torch.cat((before, contender.lookup(all_ids)))
    reference = next(iter(rows.values()))
    return {key: float((mine - reference).abs().max()) for key, mine in rows.items()}
