"""The order of train_bench.py: contenders must agree first, then they take turns, each in new processes."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

from dist_s2s.config import Config
from dist_s2s.text.corpus import Example
from training.job import OURS, Contender, Job, Measurement

Measure = Callable[[Job], Measurement]
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


class Disagreement(Exception):
    """Contenders that do not compute the same thing."""


@dataclass(frozen=True)
class Problem:
    """What all contenders train."""

    config: Config
    ranks: int
    vocabulary_sizes: tuple[int, int]
    examples: list[Example]
    contenders: tuple[Contender, ...]

    @property
    def num_embeddings(self) -> int:
        """V, rows of the larger vocabulary."""
        return max(self.vocabulary_sizes)

    def job(self, contender: Contender, steps: int, config: Config | None = None, breakdown: bool = False) -> Job:
        """Return a contender's turn."""
        settings = config or self.config
        return Job(contender, settings, self.ranks, self.vocabulary_sizes, self.examples, steps, breakdown)


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


def race(problem: Problem, measure: Measure, turns: int, seconds: float, say: Callable[[str], None]) -> list[Result]:
    """Time each contender ``turns`` times for about ``seconds``; ``say`` tells progress.

    Raises:
        Disagreement: The contenders do not compute the same.
    """
    estimates = check(problem, measure, say)
    found: dict[Contender, list[Measurement]] = {contender: [] for contender in problem.contenders}
    for turn in range(turns):
        for contender, measured in found.items():
            say(f"V = {problem.num_embeddings:,}: {contender.key}, turn {turn + 1} of {turns}")
            steps = WARM_UP + max(LEAST_STEPS, round(seconds / estimates[contender]))
            measured.append(measure(problem.job(contender, steps)))
            # Later steps may differ: dense Adam also moves rows that are not in use.
            compare(contender, found[OURS][0], measured[-1], 2, WHEN_TIMED)
    ours = median(measurement.tokens_per_second(WARM_UP) for measurement in found[OURS])
    return [_result(contender, problem, measured, ours) for contender, measured in found.items()]


def check(problem: Problem, measure: Measure, say: Callable[[str], None]) -> dict[Contender, float]:
    """Compare losses and norms of the first steps; return seconds of a step.

    All train in float32, with clipped gradients, and with SGD for the tables, whose steps show a wrong factor where
    Adam's do not.

    Raises:
        Disagreement: They differ.
    """
    training = problem.config.training.model_copy(update={"precision": "fp32", "max_norm": 0.1})
    embedding = problem.config.embedding.model_copy(update={"optimizer": "sgd", "learning_rate": 1.0})
    config = problem.config.model_copy(update={"training": training, "embedding": embedding})
    estimates: dict[Contender, float] = {}
    reference: Measurement | None = None
    for contender in problem.contenders:
        say(f"V = {problem.num_embeddings:,}: comparing {contender.key}")
        measurement = measure(problem.job(contender, CHECKED_STEPS, config))
        reference = reference or measurement
        compare(contender, reference, measurement, CHECKED_STEPS, WHEN_COMPARED)
        estimates[contender] = median(measurement.seconds[2:])
    return estimates


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


def _result(contender: Contender, problem: Problem, measured: list[Measurement], ours: float) -> Result:
    rates = [measurement.tokens_per_second(WARM_UP) for measurement in measured]
    first, middle, third = quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
    return Result(
        contender=contender.key,
        num_embeddings=problem.num_embeddings,
        output=problem.config.model.output,
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
