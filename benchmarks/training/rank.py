"""The program of one rank of a job: torchrun -m training.rank FOLDER reads FOLDER/job.json, writes FOLDER/rank-N.json.

It runs as the `train` command does: the same process groups, thread count, autocast and treatment of denormals.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from common.devices import resident
from dist_s2s.distributed import Ranks, joined_ranks
from dist_s2s.training.accelerator import make_accelerator
from training.job import Job, Measurement
from training.ours import train_ours
from training.replicated import train_replicated

if TYPE_CHECKING:
    from accelerate import Accelerator


def main(folder: Path) -> None:
    """Do this rank's part of the job."""
    job = Job.from_json((folder / "job.json").read_text(encoding="utf-8"))
    training = job.config.training
    with joined_ranks(training.threads_per_rank) as ranks:
        measurement = measure(job, make_accelerator(ranks), ranks)
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(asdict(measurement)), encoding="utf-8")


def measure(job: Job, accelerator: "Accelerator", ranks: Ranks) -> Measurement:
    """Train as the job says (collective)."""
    idle = resident()
    parts: dict[str, float] = {}
    if job.contender.kind == "ours":
        records, parameters, parts = train_ours(job, accelerator, ranks)
    else:
        records, parameters = train_replicated(job, ranks)
    ends = [record.end for record in records]
    return Measurement(
        losses=[record.loss for record in records],
        norms=[record.norm for record in records],
        seconds=[end - start for start, end in zip([records.start, *ends], ends, strict=False)],
        tokens=[record.tokens for record in records],
        idle_bytes=[idle],
        peak_bytes=[records.peak_bytes],
        parts=parts,
        parameters=parameters,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
