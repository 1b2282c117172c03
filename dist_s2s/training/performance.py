"""Where the time of a training step goes on each rank, and what else a step costs there.

A step's phases (see ``events``) belong to five parts, whose seconds add up, with ``other``, to those of the step:

    data        waiting for the next batch, and for owners to know which rows it needs; made ahead, in the background
    exchange    of rows and their gradients, with all that owners do to them; waiting for slower ranks included
    core        forward and backward of encoder and decoder, with DDP's sums of their gradients
    softmax     forward and backward of the output layer, with its collectives if it is sharded
    optimizer   clipping and all updates
    other       between steps: looking for signals, writing figures

On a CPU the clock is the host's. On CUDA, where calls return before the work is done, a part's seconds are those of the
device, between events that are recorded in its current stream.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise

import psutil
import torch

from dist_s2s.sharded import ExchangeStatistics
from dist_s2s.training.events import Phase

PART_OF: Mapping[Phase, str] = {
    "data": "data",
    "lookup": "exchange",
    "forward": "core",
    "loss": "softmax",
    "backward": "softmax",
    "core_backward": "core",
    "lookup_backward": "exchange",
    "average": "core",
    "clip": "optimizer",
    "update": "optimizer",
}
PARTS = tuple(dict.fromkeys(PART_OF.values()))

# What is told of each rank, in this order: means of a step, but for the memory.
FIGURES = (
    "step_seconds",
    *(f"{part}_seconds" for part in PARTS),
    "other_seconds",
    "waited_seconds",  # in the tables' collectives, in whatever part; a rank that hardly waits is waited for
    "bytes_sent",
    "ids",
    "distinct_ids",
    "rows_served",  # the rank's load as an owner
    "memory_bytes",
)


class PartClock:
    """Adds up the seconds of each part of the steps (local)."""

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []  # of this step: which part begins when
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def reset(self) -> None:
        """Forget all seconds, but not the step that has begun."""
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def begin(self, phase: Phase) -> None:
        """Note that a phase of a step begins, and the one before it ends."""
        if phase == "data":  # no step may have come of the one before
            self._marks.clear()
        self._marks.append((PART_OF[phase], self._now()))

    def end(self) -> None:
        """Note that the step ends, and add its seconds up."""
        self._marks.append(("", self._now()))
        last = self._marks[-1][1]
        if isinstance(last, torch.cuda.Event):
            last.synchronize()  # to read the loss, training has waited for all but this
        for (part, begin), (_, end) in pairwise(self._marks):
            self.seconds[part] += _seconds_between(begin, end)
        self._marks.clear()

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def figures(
    clock: PartClock, window: float, steps: int, exchange: Sequence[ExchangeStatistics], device: torch.device
) -> list[float]:
    """Return this rank's FIGURES of the last steps (local).

    Args:
        clock: has seen these steps.
        window: their seconds, with what was between them.
        steps: how many.
        exchange: what the tables' exchanges have cost, by group of ranks.
        device: the rank's.
    """
    parts = [clock.seconds[part] for part in PARTS]
    counts = ("seconds", "bytes_sent", "ids", "distinct_ids", "rows_served")
    costs = [float(sum(getattr(of_group, name) for of_group in exchange)) for name in counts]
    sums = [window, *parts, window - sum(parts), *costs]
    return [*(total / steps for total in sums), float(memory_in_use(device))]


def memory_in_use(device: torch.device) -> int:
    """Return bytes: of a CPU rank what is resident, pages that ranks share included; on CUDA torch's peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident: int = psutil.Process().memory_info().rss
    return resident


def _seconds_between(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(begin, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds / 1_000
    assert not isinstance(end, torch.cuda.Event)
    return end - begin
