"""Environments of other systems, which cannot share ours. Each is made once, under the user's cache directory."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

BENCHMARKS = Path(__file__).parents[1]
_TORCH = f"torch=={torch.__version__.partition('+')[0]}"  # as here; where it comes from is up to pip's settings


@dataclass(frozen=True)
class Peer:
    """What pip installs for a system: ``requirements``, of which ``uninstalled`` go, and ``alone`` comes back."""

    name: str
    requirements: tuple[str, ...]
    uninstalled: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


# torchrec brings fbgemm-gpu, a CUDA build that cannot load on a CPU and hides the other. The benchmark itself, which
# runs in there, needs rich and matplotlib.
TORCHREC = Peer(
    "torchrec",
    (_TORCH, "numpy", "torchrec==1.8.0", "fbgemm-gpu-cpu==1.8.0", "rich", "matplotlib"),
    uninstalled=("fbgemm-gpu", "fbgemm-gpu-cpu"),
    alone=("fbgemm-gpu-cpu==1.8.0",),
)
# JoeyNMT 2.3 needs a sentencepiece with the interface of its time, and a module that it does not require.
JOEYNMT = Peer("joeynmt", (_TORCH, "joeynmt==2.3.0", "sentencepiece==0.2.0", "importlib_metadata", "numpy"))


def default_folder() -> Path:
    """Return the folder that keeps the environments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dist_s2s" / "peers"


def is_complete(peer: Peer, folder: Path) -> bool:
    """Return whether ``folder`` has the peer's environment with the very requirements of this version."""
    finished = _finished(peer, folder)
    is_whole = finished.exists() and (folder / peer.name / "bin" / "python").exists()  # a link may lead nowhere
    return is_whole and finished.read_text(encoding="utf-8").split() == list(peer.requirements)


def python_of(peer: Peer, folder: Path) -> str:
    """Return the interpreter of the peer's environment in ``folder``, which is made first unless it is complete.

    Raises:
        SystemExit: venv or pip fails; with its last words.
    """
    environment = folder / peer.name
    python = str(environment / "bin" / "python")
    if not is_complete(peer, folder):
        print(f"making {environment}, which takes minutes", file=sys.stderr)
        _make(environment)
        _pip(python, "install", *peer.requirements)
        if peer.alone:
            _pip(python, "uninstall", "--yes", *peer.uninstalled)
            _pip(python, "install", "--no-deps", *peer.alone)
        _finished(peer, folder).write_text("\n".join(peer.requirements), encoding="utf-8")
    return python


def _make(environment: Path) -> None:
    """Make an empty environment with pip, also where a distribution has split ensurepip off."""
    venv = [sys.executable, "-m", "venv", "--clear"]
    if find_spec("ensurepip") is not None:
        _run([*venv, str(environment)])
    else:
        _run([*venv, "--without-pip", str(environment)])
        _run([sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "pip"])


def run_again(python: str, script: str, arguments: Sequence[str]) -> int:
    """Run a benchmark under another interpreter, with this repository's dist_s2s; return its exit status."""
    return subprocess.run([python, "-W", "ignore", script, *arguments], env=environment_for_programs()).returncode


def environment_for_programs() -> dict[str, str]:
    """Return the environment in which ``python -m`` finds the benchmarks' modules and this repository's dist_s2s."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _finished(peer: Peer, folder: Path) -> Path:
    return folder / peer.name / "finished"


def _pip(python: str, *arguments: str) -> None:
    _run([python, "-m", "pip", *arguments])


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        words = "\n".join((finished.stdout + finished.stderr).splitlines()[-10:])
        raise SystemExit(f"{' '.join(command)} failed:\n{words}")
