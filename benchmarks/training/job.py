"""One turn of a contender of train_bench.py: what it is to do, the processes that do it, and what they measured."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import TypeAdapter

from common.peers import environment_for_programs
from dist_s2s.config import Config
from dist_s2s.text.corpus import Example

Kind = Literal["ours", "ddp_dense", "ddp_sparse", "joeynmt"]
_TORCHRUN_WARNS = ("W1", "W0", "[W")  # and begins with the date: Wmmdd


@dataclass(frozen=True)
class Contender:
    """Who takes part; ``threads`` are those of a process, always one in each rank of ours and of DDP."""

    kind: Kind
    threads: int = 1

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"joeynmt_{self.threads}_threads" if self.kind == "joeynmt" else self.kind


OURS = Contender("ours")


@dataclass(frozen=True)
class Job:
    """A training run of ``steps`` steps from the configuration's seed.

    Attributes:
        vocabulary_sizes: Those of source and target.
        breakdown: Whether the parts of our steps are timed, which makes them a little slower.
    """

    contender: Contender
    config: Config
    ranks: int
    vocabulary_sizes: tuple[int, int]
    examples: list[Example]
    steps: int = 0
    breakdown: bool = False

    @property
    def num_embeddings(self) -> int:
        """V, rows of the larger vocabulary."""
        return max(self.vocabulary_sizes)


@dataclass(frozen=True)
class Measurement:
    """What a job found, an element for each step or each process.

    Attributes:
        losses: Means over the global batch's tokens.
        norms: Those of all gradients, before they are clipped.
        seconds: Durations of the steps, means over the ranks, which wait for each other in each step.
        idle_bytes: Resident memory before anything was built.
        peak_bytes: The most memory that there ever was.
        parts: Seconds of a step by part, means over steps and ranks; see training/breakdown.py.
        parameters: Numbers of parameters by part, where a contender says.
    """

    losses: list[float]
    norms: list[float]
    seconds: list[float]
    tokens: list[int]
    idle_bytes: list[int]
    peak_bytes: list[int]
    parts: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)

    @property
    def peak_above_idle(self) -> int:
        """Bytes of the process that takes most."""
        return max(peak - idle for peak, idle in zip(self.peak_bytes, self.idle_bytes, strict=True))

    def tokens_per_second(self, warm_up: int) -> float:
        """Return target tokens over seconds, without the first ``warm_up`` steps."""
        return sum(self.tokens[warm_up:]) / sum(self.seconds[warm_up:])

    @classmethod
    def of_ranks(cls, measured: Sequence["Measurement"]) -> "Measurement":
        """Join what the ranks measured; each has its own part of a loss, and the norm of all."""

        def mean(values: Sequence[float]) -> float:
            return sum(values) / len(measured)

        return cls(
            losses=[sum(parts) for parts in zip(*(rank.losses for rank in measured), strict=True)],
            norms=measured[0].norms,
            seconds=[mean(step) for step in zip(*(rank.seconds for rank in measured), strict=True)],
            tokens=measured[0].tokens,
            idle_bytes=[idle for rank in measured for idle in rank.idle_bytes],
            peak_bytes=[peak for rank in measured for peak in rank.peak_bytes],
            parts={part: mean([rank.parts[part] for rank in measured]) for part in measured[0].parts},
            parameters=measured[0].parameters,
        )


def run_on_ranks(job: Job) -> Measurement:
    """Start ``job.ranks`` new processes with torchrun, as a user does.

    Raises:
        RuntimeError: One of them fails.
    """
    with TemporaryDirectory(prefix="train-bench-") as name:
        folder = Path(name)
        (folder / "job.json").write_bytes(TypeAdapter(Job).dump_json(job))
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={job.ranks}"]
        run_python(sys.executable, *torchrun, "-m", "training.rank", name)
        answers = [(folder / f"rank-{rank}.json").read_text(encoding="utf-8") for rank in range(job.ranks)]
    return Measurement.of_ranks([Measurement(**json.loads(answer)) for answer in answers])


def run_python(python: str, *arguments: str) -> str:
    """Return what the program prints.

    Raises:
        RuntimeError: The program fails; with the first of what it says of that.
    """
    finished = subprocess.run([python, *arguments], capture_output=True, text=True, env=environment_for_programs())
    if finished.returncode:
        # An abort in C++ is told without a traceback; torchrun's own, of which there is always one, comes after.
        errors = [line for line in finished.stderr.splitlines() if not line.startswith(_TORCHRUN_WARNS)][:80]
        program = f"{Path(python).name} {' '.join(arguments)}"
        raise RuntimeError(f"{program} ended with status {finished.returncode}:\n" + "\n".join(errors))
    return finished.stdout
