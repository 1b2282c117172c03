"""Trains a translator as the `train` command does: sharded tables, batches and plans made in the background."""

from typing import TYPE_CHECKING

from dist_s2s.distributed import Ranks
from dist_s2s.text.corpus import ExampleList
from dist_s2s.training.events import Event, StepEnd
from dist_s2s.training.trainer import Trainer
from training.breakdown import Stopwatch
from training.job import Job
from training.translator import Records, build_translator, count_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator


def train_ours(job: Job, accelerator: "Accelerator", ranks: Ranks) -> tuple[Records, dict[str, int], dict[str, float]]:
    """Run the shipped loop (collective); return the steps' records, numbers of parameters, and seconds by part."""
    translator = build_translator(job, ranks)
    trainer = Trainer(job.config, ExampleList(job.examples), translator, accelerator)
    stopwatch = Stopwatch(trainer) if job.breakdown else None
    steps = trainer.steps()
    if stopwatch is not None:
        trainer.listeners.append(stopwatch)
        steps = stopwatch.timed(steps)
    records = Records()

    def note(event: Event) -> None:
        if isinstance(event, StepEnd):
            records.add(event.loss, event.gradient_norm, event.target_tokens)
            trainer.interrupted = event.step == job.steps

    trainer.listeners.append(note)
    trainer.train(steps)
    records.finish(ranks)
    return records, count_parameters(translator), {} if stopwatch is None else stopwatch.parts()
