"""What a trainer tells its listeners.

A listener is any function of an event:

    from dist_s2s.training.events import Event, StepEnd

    class LossCurve:
        def __init__(self) -> None:
            self.points: list[tuple[int, float]] = []

        def __call__(self, event: Event) -> None:
            if isinstance(event, StepEnd) and event.step % 100 == 0:
                self.points.append((event.step, event.loss))

    trainer.listeners.append(LossCurve())

Listeners are called in their order, on every rank, each event at the same moment of training. So they may call
collectives, if they do so on all ranks. An event that a listener causes reaches all of them before the next one hears
of the first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Phase = Literal[
    "data",  # until the next batch is there, and what owners are asked for is known
    "lookup",  # rows come from their owners
    "forward",  # of the encoder and the decoder
    "loss",  # forward of the output layer
    "backward",  # of the loss and the output layer
    "core_backward",  # of the decoder and the encoder
    "lookup_backward",  # gradients go to the owners of their rows; missing if no table learns
    "average",  # DDP's sums of gradients that are not there yet; missing with lookup_backward
    "clip",
    "update",
]


@dataclass(frozen=True)
class PhaseBegin:
    """A part of a step begins, and the one before it ends; ``data`` begins where the step before ended.

    Listeners that measure time on an accelerator must synchronize with it, or record its events, themselves. There the
    phases within backward are told in a thread of autograd's, which the main thread waits for.
    """

    phase: Phase


@dataclass(frozen=True)
class StepEnd:
    """A step is complete.

    Attributes:
        step: number of steps so far.
        loss: this rank's part of the mean loss of a target token, in nats; the sum over ranks is the loss.
        gradient_norm: of all gradients, before clipping.
        target_tokens: of the global batch.
    """

    step: int
    loss: float
    gradient_norm: float
    target_tokens: int


@dataclass(frozen=True)
class StepsEnd:
    """No step follows; the last validation is due."""

    step: int


@dataclass(frozen=True)
class ValidationBatch:
    """A batch of a validation is done, on every rank."""


@dataclass(frozen=True)
class StreamWait:
    """A stream has nothing new yet; told about once a second."""


@dataclass(frozen=True)
class ChunkBegin:
    """A chunk of a stream has been read and counted, and is trained on next.

    Attributes:
        number: chunks before it.
        pairs: that were read.
        dropped: those of them that are too long, or have an empty side.
        source, target: ids that have got another word, as (id, old word or None, new word).
    """

    step: int
    number: int
    pairs: int
    dropped: int
    source: Sequence[tuple[int, str | None, str]]
    target: Sequence[tuple[int, str | None, str]]


@dataclass(frozen=True)
class Paused:
    """Something other than training begins: a validation, a checkpoint, the reading of a stream."""


@dataclass(frozen=True)
class Resumed:
    """It is over."""


@dataclass(frozen=True)
class Report:
    """Figures of the steps since the last report, the same on all ranks.

    Attributes:
        values: of all ranks together.
        fraction: how much of the run is done, 0 … 1.
        by_rank: further figures with a value for each rank; see ``performance``.
    """

    step: int
    values: Mapping[str, float]
    fraction: float
    by_rank: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class OtherValidation:
    """The pairs of another domain, ``data.mix_valid``, have been translated and scored too.

    Attributes:
        bleu, chrf: 0 … 100.
        signature: sacreBLEU's, of the BLEU.
    """

    step: int
    bleu: float
    chrf: float
    signature: str


@dataclass(frozen=True)
class Validation:
    """The validation data have been translated and scored.

    Attributes:
        epoch: complete epochs so far.
        minutes: of training so far, validations included.
        loss: mean negative log-likelihood of a target token, in nats.
        bleu, chrf: 0 … 100.
        rows: (source, reference, hypothesis) of each pair.
        signature: sacreBLEU's, of the BLEU.
        cut: translations that have reached their longest length without an end.
        warning: what the user must know of the scores; empty if nothing.
    """

    step: int
    epoch: int
    minutes: float
    loss: float
    bleu: float
    chrf: float
    rows: Sequence[tuple[str, str, str]]
    signature: str
    cut: int = 0
    warning: str = ""


@dataclass(frozen=True)
class CheckpointBegin:
    """A checkpoint is written next. What must be on the disk before it is there, a listener writes now."""

    step: int


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint is complete."""

    step: int
    path: Path


@dataclass(frozen=True)
class RunEnd:
    """Training is over.

    Attributes:
        reason: in words.
        interrupted: it was told to stop, and is to go on later.
    """

    step: int
    reason: str
    interrupted: bool


Event = (
    PhaseBegin
    | StepEnd
    | StepsEnd
    | Paused
    | Resumed
    | Report
    | ValidationBatch
    | StreamWait
    | ChunkBegin
    | Validation
    | OtherValidation
    | CheckpointBegin
    | CheckpointSaved
    | RunEnd
)
Listener = Callable[[Event], None]
