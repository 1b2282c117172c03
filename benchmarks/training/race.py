"""The order of train_bench.py: contenders must agree first, then they take turns, each in new processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from common.figures import Disagreement
from training.job import Contender, Job, Measurement, run_on_ranks
from training.joeynmt import run_joeynmt

WARM_UP = 3  # steps that are not timed
LEAST_STEPS = 3
CHECKED_STEPS = 5
# How far losses and gradient norms may be from ours, relatively. To be compared, all compute in float32 and tables are
# updated by SGD, so that only sums are in another order: DDP is within 2e-5. JoeyNMT clips by torch's norm of a whole
# matrix, which for 8,000 x 512 numbers is 1e-4 too small; when DDP clipped so, 1e-3 came of it in three steps. While
# timed, bf16 has 8 significant bits, and sparse Adam adds epsilon before it corrects the bias, dense Adam after.
Tolerance = tuple[float, float]
WHEN_COMPARED: Tolerance = (2e-4, 3e-3)
WHEN_TIMED: Tolerance = (5e-3, 5e-2)


@dataclass(frozen=True)
class Result:
    """A contender's figures; memory is that of the process that takes most, above an idle one."""

    contender: str
    num_embeddings: int
    output: str  # layer, of model.output
    tokens_per_second: list[float]  # of each turn
    median: float
    first_quartile: float
    third_quartile: float
    ours_by_this: float
    step_seconds: float
    steps_per_turn: int
    processes: int
    peak_bytes_above_idle: int


def run(python: str, job: Job) -> Measurement:
    """Run a job where its contender lives; ``python`` is JoeyNMT's."""
    return run_joeynmt(python, job) if job.contender.kind == "joeynmt" else run_on_ranks(job)


def race(jobs: Sequence[Job], python: str, turns: int, seconds: float, say: Callable[[str], None]) -> list[Result]:
    """Time each job ``turns`` times for about ``seconds``; the first is ours, and ``say`` tells progress.

    Raises:
        Disagreement: The contenders do not compute the same.
    """
    estimates = check(jobs, python, say)
    found: list[list[Measurement]] = [[] for _ in jobs]
    for turn in range(turns):
        for job, estimate, measured in zip(jobs, estimates, found, strict=True):
            say(f"V = {job.num_embeddings:,}: {job.contender.key}, turn {turn + 1} of {turns}")
            steps = WARM_UP + max(LEAST_STEPS, round(seconds / estimate))
            measured.append(run(python, replace(job, steps=steps)))
            # Later steps may differ: dense Adam also moves rows that are not in use.
            compare(job.contender, found[0][0], measured[-1], 2, WHEN_TIMED)
    ours = median(measurement.tokens_per_second(WARM_UP) for measurement in found[0])
    return [_result(job, measured, ours) for job, measured in zip(jobs, found, strict=True)]


def check(jobs: Sequence[Job], python: str, say: Callable[[str], None]) -> list[float]:
    """Compare losses and norms of the first steps with the first job's; return seconds of a step.

    All train in float32, with clipped gradients, and with SGD for the tables, whose steps show a wrong factor where
    Adam's do not.

    Raises:
        Disagreement: They differ.
    """
    training = jobs[0].config.training.model_copy(update={"precision": "fp32", "max_norm": 0.1})
    embedding = jobs[0].config.embedding.model_copy(update={"optimizer": "sgd", "learning_rate": 1.0})
    config = jobs[0].config.model_copy(update={"training": training, "embedding": embedding})
    found: list[Measurement] = []
    for job in jobs:
        say(f"V = {job.num_embeddings:,}: comparing {job.contender.key}")
        found.append(run(python, replace(job, config=config, steps=CHECKED_STEPS)))
        compare(job.contender, found[0], found[-1], CHECKED_STEPS, WHEN_COMPARED)
    return [median(measurement.seconds[2:]) for measurement in found]


def compare(
    contender: Contender, reference: Measurement, measurement: Measurement, steps: int, within: Tolerance
) -> None:
    """Compare losses and norms of the first steps, and the parts' numbers of parameters.

    Raises:
        Disagreement: They differ.
    """
    if measurement.parameters != reference.parameters:
        raise Disagreement(
            f"{contender.key} has other numbers of parameters than ours: {measurement.parameters}, but not "
            f"{reference.parameters}"
        )
    names = ("loss", "gradient norm")
    pairs = ((reference.losses, measurement.losses), (reference.norms, measurement.norms))
    for name, tolerance, (expected, found) in zip(names, within, pairs, strict=True):
        for step in range(steps):
            if not abs(found[step] - expected[step]) <= tolerance * abs(expected[step]):
                raise Disagreement(
                    f"no timings: the {name} of {contender.key} in step {step} is {found[step]:.6g}, but that of ours "
                    f"is {expected[step]:.6g}, and they may differ by {tolerance:g} of it"
                )


def _result(job: Job, measured: list[Measurement], ours: float) -> Result:
    rates = [measurement.tokens_per_second(WARM_UP) for measurement in measured]
    first, middle, third = quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
    return Result(
        contender=job.contender.key,
        num_embeddings=job.num_embeddings,
        output=job.config.model.output,
        tokens_per_second=rates,
        median=middle,
        first_quartile=first,
        third_quartile=third,
        ours_by_this=ours / middle,
        step_seconds=median(second for measurement in measured for second in measurement.seconds[WARM_UP:]),
        steps_per_turn=len(measured[0].seconds) - WARM_UP,
        processes=len(measured[0].peak_bytes),
        peak_bytes_above_idle=max(measurement.peak_above_idle for measurement in measured),
    )
