"""Runs probes in the environment of one system: python feature_runner.py SYSTEM FEATURE...

Each probe runs in new processes, one for each rank, so that one which hangs or aborts harms no other. They are forked,
because importing a system takes longer than all its probes. Prints a JSON object on a line for the versions, and one
for each answer. Needs Python and the system alone.
"""

import faulthandler
import importlib
import json
import multiprocessing
import os
import platform
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from feature_list import FOUR_RANKS, SYSTEMS, Answer

SECONDS_FOR_A_PROBE = 60
SECONDS_FOR_A_COLLECTIVE = 10
WORST_FIRST = ("error", "not run", "no", "partly", "n/a", "yes")
NEEDS_CUDA = ("not compiled with CUDA", "no NVIDIA driver", "CUDA is not available", "is_cuda")


def main(system: str, *features: str) -> None:
    """Runs the probes, one after the other."""
    module, distribution = SYSTEMS[system]
    probes: dict[str, Callable[[dist.ProcessGroup], Answer]] = importlib.import_module(module).PROBES
    versions = {"python": platform.python_version(), "torch": torch.__version__, distribution: version(distribution)}
    print(json.dumps({"versions": versions}), flush=True)
    for feature in features:
        answer = on_ranks(probes[feature], 4 if feature in FOUR_RANKS else 2)
        print(json.dumps({"feature": feature, "verdict": answer.verdict, "evidence": answer.evidence}), flush=True)


def on_ranks(probe: Callable[[dist.ProcessGroup], Answer], ranks: int) -> Answer:
    """The worst of the ranks' answers; of several the first rank's."""
    context = multiprocessing.get_context("fork")
    with TemporaryDirectory(prefix="features-") as folder:
        processes = [
            context.Process(target=_rank, args=(probe, rank, ranks, Path(folder))) for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS_FOR_A_PROBE)
        answers = [_answer(process, rank, Path(folder)) for rank, process in enumerate(processes)]
    return min(answers, key=lambda answer: WORST_FIRST.index(answer.verdict))


def _answer(process: BaseProcess, rank: int, folder: Path) -> Answer:
    if process.is_alive():
        process.kill()
        process.join()
        return Answer("no", f"rank {rank} did not end within {SECONDS_FOR_A_PROBE} s")
    file = folder / str(rank)
    if file.exists():
        return Answer(*json.loads(file.read_text(encoding="utf-8")))
    code = process.exitcode or 0
    return Answer("no", f"rank {rank} died: {signal.Signals(-code).name if code < 0 else f'exit status {code}'}")


def _rank(probe: Callable[[dist.ProcessGroup], Answer], rank: int, ranks: int, folder: Path) -> None:
    """In a new process."""
    faulthandler.disable()
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback
    os.dup2(2, 1)  # stdout is for answers
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
    try:
        answer = probe(dist.group.WORLD)
    except Exception as error:
        traceback.print_exc()
        answer = _answer_of(error)
    (folder / f"{rank}.part").write_text(json.dumps([answer.verdict, answer.evidence]), encoding="utf-8")
    (folder / f"{rank}.part").rename(folder / str(rank))
    os._exit(0)  # at once: some systems have threads that never end


def _answer_of(error: Exception) -> Answer:
    text = one_line(error)
    if any(sign in text for sign in NEEDS_CUDA):
        return Answer("not run", "needs CUDA")
    return Answer("error" if isinstance(error, (AttributeError, ImportError, NameError)) else "no", text)


def one_line(error: BaseException) -> str:
    """The error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


if __name__ == "__main__":
    main(*sys.argv[1:])
