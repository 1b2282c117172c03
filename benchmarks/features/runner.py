"""Runs probes in the environment of one system: python -m features.runner SYSTEM FEATURE...

Each probe runs in new processes, one for each rank, so that one which hangs or aborts harms no other. They are forked,
because importing a system may take longer than all its probes. Prints a JSON object a line: first the versions, then
the answers. Imports torch and the system, and nothing of dist_s2s for the others.
"""

import importlib
import json
import multiprocessing
import os
import platform
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch._dynamo  # the first optimizer imports it, which takes as long as torch: once, and not in every rank
import torch.distributed as dist

from features.catalogue import FOUR_RANKS, SYSTEMS, Answer
from features.probes import Probes, one_line
from features.table_checks import SECONDS_FOR_A_COLLECTIVE

Probe = Callable[[dist.ProcessGroup], Answer]
SECONDS_FOR_A_PROBE = 60
_WORST_FIRST = ("error", "not run", "no", "partly", "n/a", "yes")
_NEEDS_CUDA = ("not compiled with CUDA", "only supports CUDA", "no NVIDIA driver")


def main(system: str, *features: str) -> None:
    """Run the probes, one after the other."""
    distribution = SYSTEMS[system].distribution
    probes = importlib.import_module(SYSTEMS[system].probes).System
    versions = {"python": platform.python_version(), "torch": torch.__version__, distribution: version(distribution)}
    print(json.dumps({"versions": versions}), flush=True)
    for feature in features:
        answer = run_probe(partial(_ask, probes, feature), 4 if feature in FOUR_RANKS else 2)
        print(json.dumps({"feature": feature, "verdict": answer.verdict, "evidence": answer.evidence}), flush=True)


def run_probe(probe: Probe, ranks: int) -> Answer:
    """Return the worst of the ranks' answers; of several the one given first, which is the cause of the others."""
    context = multiprocessing.get_context("fork")
    with TemporaryDirectory(prefix="features-") as folder:
        processes = [context.Process(target=_rank, args=(probe, rank, ranks, Path(folder))) for rank in range(ranks)]
        for process in processes:
            process.start()
        deadline = time.monotonic() + SECONDS_FOR_A_PROBE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        answers = [_answer(process, rank, Path(folder)) for rank, process in enumerate(processes)]
    return min(answers, key=lambda timed: (_WORST_FIRST.index(timed[0].verdict), timed[1]))[0]


def _ask(probes: type[Probes], feature: str, group: dist.ProcessGroup) -> Answer:
    return probes(group).answer(feature)


def _answer(process: BaseProcess, rank: int, folder: Path) -> tuple[Answer, float]:
    """Return a rank's answer, and when it was given."""
    if process.is_alive():
        process.kill()
        process.join()
    file = folder / str(rank)
    if file.exists():
        return Answer(*json.loads(file.read_text(encoding="utf-8"))), file.stat().st_mtime
    if process.exitcode == -signal.SIGKILL:
        return Answer("no", f"rank {rank} does not end within {SECONDS_FOR_A_PROBE} s"), time.time()
    code = process.exitcode or 0
    return Answer("no", f"rank {rank} dies: {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"), 0.0


def _rank(probe: Probe, rank: int, ranks: int, folder: Path) -> None:
    """Answer as one rank, in a new process."""
    os.dup2(2, 1)  # stdout is for answers
    os.chdir(folder)  # where a probe's files are shared by the ranks, and removed
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=SECONDS_FOR_A_COLLECTIVE),
    )
    assert dist.group.WORLD is not None
    dist.barrier()  # a probe that kills its rank must not meet another that is still joining
    try:
        answer = probe(dist.group.WORLD)
    except Exception as error:
        traceback.print_exc()
        answer = _answer_of(error)
    unfinished = folder / f"{rank}.unfinished"
    unfinished.write_text(json.dumps([answer.verdict, answer.evidence]), encoding="utf-8")
    unfinished.rename(folder / str(rank))
    # A rank that left at once would tell the others, by its closed connections, what they must find out themselves.
    deadline = time.monotonic() + 1.5 * SECONDS_FOR_A_COLLECTIVE
    while time.monotonic() < deadline and not all((folder / str(peer)).exists() for peer in range(ranks)):
        time.sleep(0.01)
    os._exit(0)  # some systems have threads that never end


def _answer_of(error: Exception) -> Answer:
    if any(sign in str(error) for sign in _NEEDS_CUDA):
        return Answer("not run", "needs CUDA")
    return Answer("error", one_line(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
