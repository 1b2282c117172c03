"""Times lookup, backward and update of a row-sharded table against the other ways to train one on several ranks.

    python benchmarks/lookup_bench.py --ranks 2 --peers torchrec --json lookup.json --plot lookup.png
    python benchmarks/lookup_bench.py --sweep ids --contenders shared_memory torchrec floor --peers torchrec
    python benchmarks/lookup_bench.py --ids 81920 --ids_per_bag 20 --peers torchrec

Starts its own ranks, of one thread each, joined by gloo over loopback. lookup/lineup.py names the contenders,
lookup/contenders_*.py build them. Each rank has ids and gradients of its own, and gradients are averaged over ranks.
First all must compute the same: after steps of SGD, and of RowWiseAdagrad where a system has it, rows must be those
that one process computes in float64; else the exit status is 1. Then they take turns, so that whatever else the machine
does hits all of them. Ranks begin each step at a moment that they agree on, and it lasts until the last has ended.
Systems with dense gradients use SGD, whose update of a whole table is the cheapest, and slow ones take fewer steps.
Peak memory is measured at the end, in new processes.

--ids_per_bag sums the rows of bags of ids to one output each, as nn.EmbeddingBag does; only those take part that can.
--sweep does that for several values of one setting. --peers torchrec makes TorchRec's environment, unless it is there,
and runs all contenders in it.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from importlib.util import find_spec

from common.arguments import settings_of
from common.figures import Disagreement, write_results
from common.peers import TORCHREC, python_of, run_again
from dist_s2s.cli.command_line import run_command
from lookup.lineup import default_names
from lookup.measure import measure, skew_name
from lookup.options import parse
from lookup.plot import draw
from lookup.problem import Problem
from lookup.report import print_run, print_sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if the contenders disagree."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments, __doc__)
    if options.peers == "torchrec" and find_spec("torchrec") is None:
        return run_again(python_of(TORCHREC, options.peers_folder), __file__, arguments)
    names = options.contenders or default_names(options.sweep is not None, options.device, options.ids_per_bag > 1)
    runs = []
    for value in options.values:
        settings = vars(options) | ({} if options.sweep is None else {options.sweep: value})
        problem = Problem(*(settings[field.name] for field in fields(Problem)))
        try:
            runs.append(measure(names, settings["ranks"], problem, options.repetitions, options.memory))
        except Disagreement as error:
            print(error, file=sys.stderr)
            return 1
        print_run(runs[-1])
    if options.sweep is not None:
        print_sweep(runs, options.sweep)
    figures = {
        "peers": {"torchrec": version("torchrec")} if find_spec("torchrec") is not None else {},
        "settings": {**settings_of(options, "peers_folder", "values"), "skew": skew_name(options.skew)},
        "runs": runs,
    }
    write_results(options.json, figures)
    if options.plot is not None:
        draw(figures, options.plot)
    return 0


if __name__ == "__main__":
    run_command(main)
