"""Compare what `python -m dist_s2s.estimate` predicts with measured step times.

    python -m dist_s2s.estimate --calibrate machine.json
    python benchmarks/estimate_check.py --calibration machine.json --json estimate.json

The problems are none of those that a calibration measures, but steps are timed as there: of one thread for each rank,
joined by gloo over loopback; from the moment at which all ranks begin until the last has ended; their median counts. A
machine's own speed drifts: the same check right after a calibration and an hour later can differ by 40 %. Exits with 1
if a prediction is off by more than the factor --limit.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arguments import add_outputs, make_parser, positive
from common.figures import write_results
from dist_s2s.cli.command_line import run_command
from dist_s2s.cost.calibrate import measure, this_host
from dist_s2s.cost.calibration import Calibration, read_calibration
from dist_s2s.cost.problem import Layout, Problem, TransportName
from dist_s2s.cost.seconds import step_seconds

# V, D, N, skew, layout, transport.
CASES: tuple[tuple[int, int, int, float, Layout, TransportName], ...] = (
    (8_000, 256, 2_048, 1.0, "round_robin", "shared_memory"),
    (50_000, 64, 512, 1.0, "round_robin", "shared_memory"),
    (50_000, 64, 4_096, 0.0, "contiguous", "collective"),
    (250_000, 32, 4_096, 0.8, "contiguous", "shared_memory"),
    (300_000, 48, 10_000, 1.2, "round_robin", "shared_memory"),
    (1_000_000, 128, 4_096, 1.0, "round_robin", "shared_memory"),
    (1_000_000, 128, 4_096, 1.0, "contiguous", "collective"),
    (2_000_000, 32, 2_048, 1.0, "round_robin", "collective"),
)


def check(problems: Sequence[Problem], calibration: Calibration, steps: int) -> list[dict[str, Any]]:
    """Measure a step of each problem, and return it beside the prediction; ``factor`` is by how much that is off."""
    results = []
    for problem, measured in zip(problems, measure(problems, steps)[0], strict=True):
        predicted = sum(step_seconds(problem, calibration.coefficients).values())
        names = ("num_embeddings", "embedding_dim", "ids", "skew", "layout", "transport")
        settings = {"ranks": problem.cluster.ranks, **{name: getattr(problem, name) for name in names}}
        factor = max(predicted / measured, measured / predicted)
        results.append({**settings, "measured": measured, "predicted": predicted, "factor": factor})
    return results


def summary(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the largest factor and the geometric mean of all."""
    factors = [result["factor"] for result in results]
    return {"largest_factor": max(factors), "mean_factor": statistics.geometric_mean(factors)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print measured and predicted times; return 1 if a prediction is off by more than the limit, else 0."""
    options = _parse(arguments)
    calibration = read_calibration(options.calibration)
    problems = [
        Problem(rows, dim, ids, skew, this_host(ranks), layout, transport)
        for ranks in options.ranks
        for rows, dim, ids, skew, layout, transport in CASES
    ]
    results = check(problems, calibration, options.steps)
    for result in results:
        print(
            f"{result['ranks']} ranks, V {result['num_embeddings']:9,}, D {result['embedding_dim']:3}, "
            f"N {result['ids']:6,}, skew {result['skew']:3}, {result['layout']:11} {result['transport']:13}: "
            f"measured {result['measured'] * 1e3:6.2f} ms, predicted {result['predicted'] * 1e3:6.2f} ms"
        )
    of_all = summary(results)
    print(f"off by a factor of {of_all['mean_factor']:.2f} on average, {of_all['largest_factor']:.2f} at most")
    origin = {name: getattr(calibration, name) for name in ("date", "cpu", "cores", "torch")}
    write_results(options.json, {"calibration": origin, "limit": options.limit, **of_all, "results": results})
    return int(of_all["largest_factor"] > options.limit)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=positive, nargs="+", default=[2, 4])
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="default: the package's own")
    parser.add_argument("--steps", type=positive, default=50, help="of each problem; default: 50")
    parser.add_argument("--limit", type=float, default=2.0, metavar="FACTOR", help="of an error; default: 2")
    add_outputs(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
