"""How far the gradient of sampled softmax is from that of the exact one, by the number of samples.

    python benchmarks/sampled_softmax_curve.py --json curve.json --plot curve.png

One process, one output layer with logits as peaked as those of a trained model, log-uniform targets. For each number of
samples the loss is drawn many times. Two errors of the gradients of the table and of the hidden states, both relative
to the norm of the exact gradient:

    of one draw    root of the mean squared distance: what a training step sees
    of the mean    distance of the mean over all draws: the bias, which many steps do not average away

The mean of finitely many draws has noise of its own; its expected square is subtracted from that of the second error,
and what is left is shown as 0 if negative. --plot needs matplotlib.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from common.arguments import add_outputs, make_parser, positive, settings_of
from common.figures import print_table, write_results
from common.samplers import draw_ids
from dist_s2s.cli.command_line import run_command
from dist_s2s.sharded import DistributedEmbedding, SampledSoftmaxLoss

PARTS = ("table", "hidden")  # whose gradients are compared
SAMPLES = tuple(2**exponent for exponent in range(4, 15))


@dataclass(frozen=True)
class Problem:
    """An output layer and a batch: weight and bias tables, hidden [N, H], target int64 [N]."""

    table: DistributedEmbedding
    bias: DistributedEmbedding
    hidden: Tensor
    target: Tensor


@dataclass(frozen=True)
class Point:
    """Errors with one number of samples, by part. ``candidates``: how many distinct ones there are on average."""

    samples: int
    candidates: float
    of_one_draw: dict[str, float]
    of_the_mean: dict[str, float]


def make_problem(num_classes: int, hidden_size: int, tokens: int, peak: float) -> Problem:
    """Return a problem whose logits are the logarithm of the class's frequency plus a match of row and hidden state.

    That is what training makes of them. The match lifts the target's logit by ``peak``. The others get noise of
    standard deviation peak * sqrt(5 / H), so that each token has likely rivals, rare classes too, of which q knows
    nothing.
    """
    generator = torch.Generator().manual_seed(1)
    table = DistributedEmbedding(num_classes, hidden_size, init_std=hidden_size**-0.5, dtype=torch.float64, seed=1)
    bias = DistributedEmbedding(num_classes, 1, init_std=0, dtype=torch.float64)
    with torch.no_grad():
        bias.weight.copy_(-torch.arange(1, num_classes + 1, dtype=torch.float64).log()[:, None])
    target = draw_ids(tokens, num_classes, generator)
    noise = torch.randn(tokens, hidden_size, generator=generator, dtype=torch.float64) * 2 * hidden_size**-0.5
    hidden = peak * (table.weight[target].detach() + noise)
    return Problem(table, bias, hidden.requires_grad_(), target)


def gradients(problem: Problem, loss: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the table, [V, H], and the hidden states, [N, H]."""
    problem.table.weight.grad = problem.hidden.grad = None
    loss.backward()
    table_gradient, hidden_gradient = problem.table.weight.grad, problem.hidden.grad
    assert table_gradient is not None
    assert hidden_gradient is not None
    return {"table": table_gradient.to_dense(), "hidden": hidden_gradient}


def exact_loss(problem: Problem) -> Tensor:
    """Return the cross-entropy over all classes."""
    logits = F.linear(problem.hidden, problem.table.weight, problem.bias.weight[:, 0])
    return F.cross_entropy(logits, problem.target)


def measure(problem: Problem, samples: int, draws: int) -> Point:
    """Return one point of the curve."""
    exact = gradients(problem, exact_loss(problem))
    sampled_softmax = SampledSoftmaxLoss(problem.table, problem.bias, num_samples=samples)
    means = {part: torch.zeros_like(gradient) for part, gradient in exact.items()}
    squares = dict.fromkeys(PARTS, 0.0)
    candidates = 0
    for step in range(draws):
        candidates += len(sampled_softmax.sample(problem.target, step).log_inclusion)
        drawn = gradients(problem, sampled_softmax(problem.hidden, problem.target))
        for part in PARTS:
            means[part] += drawn[part] / draws
            squares[part] += float((drawn[part] - exact[part]).square().sum()) / draws
    of_one_draw, of_the_mean = {}, {}
    for part in PARTS:
        norm = float(exact[part].norm())
        distance = float((means[part] - exact[part]).square().sum())
        # The expected square of the noise is the variance of one draw over the number of draws.
        noise = (squares[part] - distance) / max(draws - 1, 1)
        of_one_draw[part] = math.sqrt(squares[part]) / norm
        of_the_mean[part] = math.sqrt(max(distance - noise, 0.0)) / norm
    return Point(samples, candidates / draws, of_one_draw, of_the_mean)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    problem = make_problem(options.num_classes, options.hidden_size, options.tokens, options.peak)
    perplexity = float(exact_loss(problem).detach().exp())
    curve = []
    with Console(stderr=True).status("drawing") as status:
        for samples in options.samples:
            status.update(f"{options.draws} draws of {samples:,} samples")
            curve.append(measure(problem, samples, options.draws))
    _print(curve, perplexity, options)
    figures = {"settings": settings_of(options), "perplexity": perplexity, "curve": [asdict(point) for point in curve]}
    write_results(options.json, figures)
    if options.plot is not None:
        plot(curve, options.num_classes, options.plot)
    return 0


def plot(curve: Sequence[Point], num_classes: int, file: Path) -> None:
    """Draw both errors over the number of samples, one panel for each part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    samples = [point.samples for point in curve]
    for axes, part, name in zip(panels, PARTS, ("output table", "hidden states"), strict=True):
        of_one_draw = [point.of_one_draw[part] for point in curve]
        of_the_mean = [point.of_the_mean[part] or math.nan for point in curve]  # 0 has no place on this axis
        axes.loglog(samples, of_one_draw, "o-", color="tab:orange", label="one draw (root mean square)")
        axes.loglog(samples, of_the_mean, "s-", color="tab:blue", label="mean over draws (bias)")
        axes.set_xscale("log", base=2)
        axes.set_xticks(samples, [f"{number:,}" for number in samples], rotation=45)
        axes.set_xlabel(f"samples of {num_classes:,} classes")
        axes.set_title(f"gradient of the {name}")
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("distance from the exact gradient ÷ its norm")
    panels[0].legend(loc="lower left")
    figure.savefig(file, dpi=150)


def _print(curve: Sequence[Point], perplexity: float, options: argparse.Namespace) -> None:
    def cells(point: Point) -> list[str]:
        errors = [f"{error[part]:.2%}" for part in PARTS for error in (point.of_one_draw, point.of_the_mean)]
        return [f"{point.samples:,}", f"{point.candidates:,.1f}", *errors]

    print_table(
        f"V = {options.num_classes:,}, H = {options.hidden_size}, {options.tokens} tokens, "
        f"perplexity {perplexity:.1f}, {options.draws} draws",
        (),
        ("samples", "candidates", "table: one draw", "of the mean", "hidden: one draw", "of the mean"),
        map(cells, curve),
    )
    print("Errors are relative to the norm of the exact gradient")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--num_classes", type=positive, default=10_000, help="V, rows of the output table")
    parser.add_argument("--hidden_size", type=positive, default=64, help="H")
    parser.add_argument("--tokens", type=positive, default=64, help="in the batch")
    parser.add_argument("--peak", type=float, default=8.0, help="how far a target's logit is lifted above the others")
    parser.add_argument("--samples", type=positive, nargs="+", default=SAMPLES, help="points of the curve")
    parser.add_argument("--draws", type=positive, default=400, help="draws for each point")
    add_outputs(parser, plots=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
