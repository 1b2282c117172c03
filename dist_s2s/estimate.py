"""python -m dist_s2s.estimate: what a training step of a sharded table will cost, before anything runs.

Predicts memory, bytes and time per step, and the best layout and transport, for one table with lookup, backward and
update; the rest of a model is not part of it. Times are those of the machine whose calibration is used, by default the
one that the package brings along: --calibrate FILE makes one here, in three minutes, on an otherwise idle machine.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dist_s2s import UserError
from dist_s2s.cli.command_line import positive_int, run_command
from dist_s2s.cost.calibrate import calibrate, problems
from dist_s2s.cost.choices import choices
from dist_s2s.cost.coefficients import Calibration, read_calibration
from dist_s2s.cost.problem import OPTIMIZERS, TRANSPORTS, Cluster, Problem
from dist_s2s.cost.report import print_estimate, to_json

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_COMM_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_BUSY_LOAD = 0.5  # processes at work, before we begin
_GB, _MICROSECOND = 10**9, 1e-6


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints an estimate, or makes a calibration."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.calibrate is not None:
        _check_folder(options.calibrate)
        if os.getloadavg()[0] > _BUSY_LOAD:
            print(f"warning: this machine is busy (load {os.getloadavg()[0]:.1f}), which spoils times", file=sys.stderr)
        with Console(stderr=True).status("measuring this machine"):
            calibration = calibrate(problems())
        _write(calibration.to_json(), options.calibrate)
        return 0
    if None in (options.num_embeddings, options.embedding_dim, options.ranks):
        parser.error("--num_embeddings, --embedding_dim and --ranks are needed, unless there is --calibrate")
    if options.json is not None:
        _check_folder(options.json)
    calibration = read_calibration(options.calibration)
    asked = None if options.transport == "auto" else options.transport
    found = choices(_problem(options, calibration), asked, calibration.coefficients)
    print_estimate(found, calibration, Console(highlight=False))
    if options.json is not None:
        _write(to_json(found, calibration), options.json)
    return 0


def _problem(options: argparse.Namespace, calibration: Calibration) -> Problem:
    if options.ranks % options.hosts:
        raise UserError(
            f"every host must have as many ranks, but {options.ranks} ranks are not a multiple of {options.hosts} hosts"
        )
    # Of one host it is the calibrated machine; of several, machines that were chosen for so many ranks.
    usual_cores = calibration.cores if options.hosts == 1 else options.ranks // options.hosts
    return Problem(
        options.num_embeddings,
        options.embedding_dim,
        options.ids,
        options.skew,
        "contiguous",
        "collective",
        options.optimizer,
        _DTYPES[options.dtype],
        None if options.comm_dtype is None else _COMM_DTYPES[options.comm_dtype],
        Cluster(
            options.ranks,
            options.hosts,
            options.cores or usual_cores,
            options.bandwidth * _GB,
            options.latency * _MICROSECOND,
        ),
    )


def _check_folder(path: Path) -> None:
    """Before minutes of work, not after."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it first")


def _write(values: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _number(lowest: float, exclusive: bool) -> Callable[[str], float]:
    """For argparse: a finite number of at least ``lowest``, or more than it."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, but is {text!r}") from None
        if not math.isfinite(value) or value < lowest or (exclusive and value == lowest):
            raise argparse.ArgumentTypeError(
                f"must be {'more than' if exclusive else 'at least'} {lowest:g}, but is {text}"
            )
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dist_s2s.estimate", description=__doc__)
    add = parser.add_argument
    add("--num_embeddings", type=positive_int, help="V, rows of the whole table")
    add("--embedding_dim", type=positive_int, help="D")
    add("--ranks", type=positive_int, help="W, of all hosts together")
    add("--hosts", type=positive_int, default=1, help="default: 1")
    add(
        "--cores",
        type=positive_int,
        help="of each host; default: those of the calibrated machine for one host, else one for each rank",
    )
    add("--ids", type=positive_int, default=4096, help="N, ids of each rank in a step; default: 4096")
    add(
        "--skew",
        type=_number(0, exclusive=False),
        default=1.0,
        help="s, id i has a probability of about (i + 1)^-s: 0 uniform ids, 1 (default) log-uniform ones (Zipf's law)",
    )
    add("--optimizer", choices=OPTIMIZERS, default="RowWiseAdagrad", help="default: RowWiseAdagrad")
    add("--dtype", choices=_DTYPES, default="float32", help="of the rows; default: float32")
    add("--comm_dtype", choices=_COMM_DTYPES, help="in which rows and gradients travel, if not in their own")
    add("--transport", choices=("auto", *TRANSPORTS), default="auto", help="auto (default): whichever is faster")
    add(
        "--bandwidth",
        type=_number(0, exclusive=True),
        default=3.125,
        help="between hosts, GB/s that each can send and receive; default: 3.125, which is 25 Gb Ethernet",
    )
    add(
        "--latency",
        type=_number(0, exclusive=False),
        default=50.0,
        help="from a host to another, µs; default: 50, which is usual for TCP in a data centre",
    )
    add("--calibration", type=Path, metavar="FILE", help="of the ranks' machine; default: the package's own")
    add("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    add("--calibrate", type=Path, metavar="FILE", help="measure this machine instead, and write its calibration there")
    return parser


if __name__ == "__main__":
    run_command(main)
