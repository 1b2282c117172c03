"""Where one of our training steps goes: seconds by part, from clocks around the shipped code. On a CPU calls wait.

lookup             Until a step's rows are there, without the exchange: waiting for the batch, gather, expansion.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any

import torch

import dist_s2s.training.trainer
from dist_s2s.sharded import DistributedEmbedding
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


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Puts ``make(original)`` in the place of an attribute of a module, class or object."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


class Stopwatch:
    """Adds up the time that calls of the shipped code take, and how much of it tables wait in collectives."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._waited: defaultdict[str, float] = defaultdict(float)
        self._tables: list[DistributedEmbedding] = []
        self._steps = 0

    @contextmanager
    def timing(self, trainer: Trainer) -> Iterator[None]:
        """Puts clocks around the parts of the trainer's steps."""
        self._tables = trainer.tables
        core, output, state = trainer.translator.core, trainer.translator.output, trainer.state
        calls: list[tuple[Any, str, str]] = [
            (trainer.core, "forward", "model"),
            (core.encoder, "forward", "encoder"),
            (core.decoder, "forward", "decoder"),
            (output, "training_loss", "output and loss"),
            (torch.Tensor, "backward", "backward"),
            (dist_s2s.training.trainer, "clip_grad_norm_", "clipping"),
            (state.core_optimizer, "step", "dense optimizer"),
            (state.table_optimizer, "step", "table optimizer"),
        ]
        with ExitStack() as stack:
            for owner, name, part in calls:
                stack.enter_context(replaced(owner, name, partial(self._timed, part)))
            stack.enter_context(replaced(trainer, "train_step", self._timed_step))
            stack.enter_context(replaced(dist_s2s.training.trainer, "training_steps", self._timed_batches))
            yield

    def parts(self) -> dict[str, float]:
        """Seconds of a step, by part."""
        own = {part: seconds - self._waited[part] for part, seconds in self._seconds.items()}
        own["exchange"] = self._waited["lookup"] + self._waited["step"]
        own["model's wrapping"] = own["model"] - own["encoder"] - own["decoder"]
        own["rest"] = own["step"] - sum(own[part] for part in PARTS if part not in ("lookup", "exchange", "rest"))
        return {part: own[part] / (self._steps - WARM_UP) for part in (*PARTS, BACKGROUND)}

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            result = function(*args, **kwargs)
            self._add(part, start)
            return result

        return timed

    def _timed_step(self, train_step: Callable[..., None]) -> Callable[..., None]:
        """Times a step, and what comes between it and the one before, when its rows are looked up."""
        end = self._now()

        def timed_step(*args: Any) -> None:
            nonlocal end
            if self._steps <= WARM_UP:
                self._seconds.clear()
                self._waited.clear()
            self._add("lookup", end)
            start = self._now()
            train_step(*args)
            self._add("step", start)
            self._steps += 1
            end = self._now()

        return timed_step

    def _timed_batches(self, training_steps: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def timed_steps(*args: Any) -> Iterator[Any]:
            steps = training_steps(*args)
            while True:
                start = self._now()
                step = next(steps)
                self._add(BACKGROUND, start)
                yield step

        return timed_steps

    def _now(self) -> tuple[float, float]:
        """The time, and how long tables have waited in collectives so far."""
        return time.perf_counter(), sum(table.statistics.seconds for table in self._tables)

    def _add(self, part: str, since: tuple[float, float]) -> None:
        for sums, now, then in zip((self._seconds, self._waited), self._now(), since, strict=True):
            sums[part] += now - then
