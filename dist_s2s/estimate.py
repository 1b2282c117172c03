"""Estimate what a training step of a sharded table will cost on hardware you don't have.

Predicts memory, bytes and the order of time of a step, and the best layout and transport, for one table with lookup,
backward and update. Times are those of the machine whose calibration is used, by default the one that comes with the
package; --calibrate FILE measures this machine, which should be idle, in about a minute.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from dist_s2s.cli.command_line import positive_int, program, run_command
from dist_s2s.cli.outputs import check_files, write_json
from dist_s2s.cost.calibrate import calibrate, problems
from dist_s2s.cost.calibration import read_calibration
from dist_s2s.cost.layouts import compare
from dist_s2s.cost.problem import OPTIMIZERS, TRANSPORTS, Cluster, Problem
from dist_s2s.cost.report import to_json, to_text

_BUSY_LOAD = 0.5  # processes at work, before we begin


def main(arguments: Sequence[str] | None = None) -> int:
    """Print an estimate, or measure a calibration."""
    parser = _parser()
    options = parser.parse_args(arguments)
    check_files([options.calibrate, options.json])
    if options.calibrate is not None:
        if os.getloadavg()[0] > _BUSY_LOAD:
            print(f"warning: this machine is busy (load {os.getloadavg()[0]:.1f}), which spoils times", file=sys.stderr)
        print("measuring this machine", file=sys.stderr)
        write_json(calibrate(problems()).to_json(), options.calibrate)
        return 0
    if None in (options.num_embeddings, options.embedding_dim, options.ranks):
        parser.error("--num_embeddings, --embedding_dim and --ranks are needed, unless there is --calibrate")
    calibration = read_calibration(options.calibration)
    # One host is the calibrated machine; several are machines that were chosen for so many ranks.
    cores = options.cores or (calibration.cores if options.hosts == 1 else max(1, options.ranks // options.hosts))
    problem = Problem(
        options.num_embeddings,
        options.embedding_dim,
        options.ids,
        options.skew,
        Cluster(options.ranks, options.hosts, cores, options.bandwidth * 1e9, options.latency * 1e-6),
        optimizer=options.optimizer,
        dtype=getattr(torch, options.dtype),
        comm_dtype=options.comm_dtype and getattr(torch, options.comm_dtype),
        averaged=options.averaged,
    )
    found = compare(problem, None if options.transport == "auto" else options.transport, calibration)
    print(to_text(found, calibration))
    if options.json is not None:
        write_json(to_json(found, calibration), options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("estimate"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--num_embeddings", type=positive_int, help="V, rows of the whole table")
    add("--embedding_dim", type=positive_int, help="D")
    add("--ranks", type=positive_int, help="W, of all hosts together")
    add("--hosts", type=positive_int, default=1, help="default: 1")
    add("--cores", type=positive_int, help="of a host; default: the calibrated machine's, or one a rank on several")
    add("--ids", type=positive_int, default=4096, help="N, ids of each rank in a step; default: 4096")
    add(
        "--skew",
        type=float,
        default=1.0,
        help="id i has a probability of about (i + 1)^-skew: 0 uniform, 1 (default) Zipf",
    )
    add("--optimizer", choices=OPTIMIZERS, default="RowWiseAdagrad", help="default: RowWiseAdagrad")
    add("--averaged", action="store_true", help="a moving average of the rows is kept, see training.ema_decay")
    add("--dtype", choices=("float32", "float64", "bfloat16"), default="float32", help="of the rows; default: float32")
    add("--comm_dtype", choices=("bfloat16", "float16"), help="in which rows and gradients travel, if not in their own")
    add("--transport", choices=("auto", *TRANSPORTS), default="auto", help="auto (default): whichever is faster")
    add("--bandwidth", type=float, default=3.125, help="of a host's network, GB/s; default: 3.125 (25 Gb Ethernet)")
    add("--latency", type=float, default=50.0, help="from host to host, µs; default: 50 (TCP in a data centre)")
    add("--calibration", type=Path, metavar="FILE", help="of the ranks' machine; default: the package's own")
    add("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    add("--calibrate", type=Path, metavar="FILE", help="measure this machine instead, and write its calibration there")
    return parser


if __name__ == "__main__":
    run_command(main)
