"""Where one of our training steps goes: seconds by part, from its events and torch's hooks. On a CPU calls wait.

lookup             Until batch and rows are there, without the exchange: waiting for the batch, gather, expansion.
exchange           What tables wait for in collectives, forward and backward, as their statistics count it.
encoder, decoder   Forward, the decoder with its attention.
model's wrapping   Of DDP, autocast and the conversion of outputs.
output and loss    Forward.
backward           Of everything, without the tables' exchange, but with DDP's all_reduce.
clipping, dense optimizer, table optimizer
rest               Everything else.

``batch preparation`` happens in the background, beside the others, and is no part of the sum.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

from torch import nn
from torch.optim import Optimizer

from dist_s2s.training.events import Event, Phase, PhaseBegin, StepEnd
from dist_s2s.training.steps import Step
from dist_s2s.training.trainer import Trainer

PARTS = (
    "lookup",
    "exchange",
    "encoder",
    "decoder",
    "model's wrapping",
    "output and loss",
    "backward",
    "clipping",
    "dense optimizer",
    "table optimizer",
    "rest",
)
BACKGROUND = "batch preparation"
WARM_UP = 2  # steps that do not count


class Stopwatch:
    """A listener that adds up the time of a step's parts, and how much of it tables wait in collectives."""

    def __init__(self, trainer: Trainer) -> None:
        # Tables of the same ranks share their statistics.
        self._statistics = {id(table.statistics): table.statistics for table in trainer.tables}.values()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._waited: defaultdict[str, float] = defaultdict(float)
        self._starts: dict[str, tuple[float, float]] = {}
        self._phase: str | None = None
        self._steps = 0
        for module, part in (
            (trainer.translator.core.encoder, "encoder"),
            (trainer.translator.core.decoder, "decoder"),
        ):
            self._time_module(module, part)
        self._time_optimizer(trainer.state.core_optimizer, "dense optimizer")
        self._time_optimizer(trainer.state.table_optimizer, "table optimizer")

    def __call__(self, event: Event) -> None:
        """Note where one phase ends and the next begins."""
        match event:
            case PhaseBegin(phase):
                self._end_phase()
                self._phase = phase
                self._start(phase)
            case StepEnd(step):
                self._end_phase()
                self._steps = step
                if step <= WARM_UP:
                    self._seconds.clear()
                    self._waited.clear()

    def timed(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Time how each step is prepared, in the thread that does it."""
        while True:
            start = time.perf_counter()
            step = next(steps)
            self._seconds[BACKGROUND] += time.perf_counter() - start
            yield step

    def parts(self) -> dict[str, float]:
        """Return the seconds of a step, by part."""
        own = defaultdict(float, {part: seconds - self._waited[part] for part, seconds in self._seconds.items()})
        own["exchange"] = sum(self._waited[phase] for phase in get_args(Phase))
        own["lookup"] += own["data"]
        own["backward"] += own["core_backward"] + own["lookup_backward"] + own["average"]
        own["model's wrapping"] = own["forward"] - own["encoder"] - own["decoder"]
        own["output and loss"], own["clipping"] = own["loss"], own["clip"]
        own["rest"] = own["update"] - own["dense optimizer"] - own["table optimizer"]
        return {part: own[part] / (self._steps - WARM_UP) for part in (*PARTS, BACKGROUND)}

    def _time_module(self, module: nn.Module, part: str) -> None:
        module.register_forward_pre_hook(lambda *_: self._start(part))
        module.register_forward_hook(lambda *_: self._stop(part))

    def _time_optimizer(self, optimizer: Optimizer, part: str) -> None:
        optimizer.register_step_pre_hook(lambda *_: self._start(part))
        optimizer.register_step_post_hook(lambda *_: self._stop(part))

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._stop(self._phase)
            self._phase = None

    def _start(self, part: str) -> Any:
        self._starts[part] = self._now()

    def _stop(self, part: str) -> Any:
        for sums, now, then in zip((self._seconds, self._waited), self._now(), self._starts[part], strict=True):
            sums[part] += now - then

    def _now(self) -> tuple[float, float]:
        """Return the time, and how long tables have waited in collectives so far."""
        return time.perf_counter(), sum(each.seconds for each in self._statistics)
