"""The program of one rank of a job: torchrun -m training.rank FOLDER reads FOLDER/job.json, writes FOLDER/rank-N.json.

It runs as the `train` command does: the same process groups, thread count, autocast and treatment of denormals.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch._dynamo  # noqa: F401  DDP imports it when it is built; it is no part of what a model takes
from pydantic import TypeAdapter

from common.devices import resident
from dist_s2s.distributed import Ranks, joined_ranks
from dist_s2s.text.corpus import ExampleList
from dist_s2s.training.accelerator import make_accelerator
from dist_s2s.training.events import Event, StepEnd
from dist_s2s.training.trainer import Trainer
from training.breakdown import Stopwatch
from training.job import Job, Measurement
from training.replicated import train_replicated
from training.translator import Recorder, build_translator

if TYPE_CHECKING:
    from accelerate import Accelerator


def main(folder: Path) -> None:
    """Do this rank's part of the job."""
    job = TypeAdapter(Job).validate_json((folder / "job.json").read_bytes())
    with joined_ranks(job.config.training.threads_per_rank) as ranks:
        measurement = measure(job, make_accelerator(ranks), ranks)
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(asdict(measurement)), encoding="utf-8")


def measure(job: Job, accelerator: "Accelerator", ranks: Ranks) -> Measurement:
    """Train as the job says (collective)."""
    return train_ours(job, accelerator, ranks) if job.contender.kind == "ours" else train_replicated(job, ranks)


def train_ours(job: Job, accelerator: "Accelerator", ranks: Ranks) -> Measurement:
    """Run the shipped loop (collective): sharded tables, batches and plans made in the background."""
    idle = resident()
    translator = build_translator(job, ranks)
    trainer = Trainer(job.config, ExampleList(job.examples), translator, accelerator)
    stopwatch = Stopwatch(trainer) if job.breakdown else None
    steps = trainer.steps()
    if stopwatch is not None:
        trainer.listeners.append(stopwatch)
        steps = stopwatch.timed(steps)
    recorder = Recorder(idle)

    def note(event: Event) -> None:
        if isinstance(event, StepEnd):
            recorder.add(event.loss, event.gradient_norm, event.target_tokens)
            trainer.interrupted = event.step == job.steps

    trainer.listeners.append(note)
    trainer.train(steps)
    return recorder.finish(ranks, translator, {} if stopwatch is None else stopwatch.parts())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
