"""How the probes of compare_features.py observe a system. Imports torch alone."""

import re
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]

from features.catalogue import Answer


def rows(number: int, dim: int = 4) -> Tensor:
    """Return the same normal numbers on every rank, [number, dim]."""
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(number))


def one_line(error: BaseException) -> str:
    """Return the error's type and the beginning of its message."""
    text = str(error).partition(" This could be because")[0]  # a page that PyTorch adds to some
    return f"{type(error).__name__}: {shorten(text, 150, placeholder=' …')}"


def installed(distribution: str) -> Answer:
    """Ask ``pip check`` whether the distribution has all it requires."""
    command = [sys.executable, "-m", "pip", "check"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    missing = [line for line in lines if line.startswith(f"{distribution} ")]
    if missing:
        return Answer("partly", f"works, but only in an environment of which pip says: {'; '.join(missing)}")
    return Answer("yes", f"{distribution} {version(distribution)} has all it requires")


def search(package: ModuleType, pattern: str) -> Answer:
    """Answer no if no Python file of the package has the pattern; if one has, a real probe must replace the search."""
    files = [file for folder in package.__path__ for file in Path(folder).rglob("*.py")]
    found = [file for file in files if re.search(pattern, file.read_text(encoding="utf-8"))]
    if found or not files:
        return Answer("error", f"/{pattern}/ occurs in {', '.join(map(str, found[:3]))}")
    return Answer("no", f"/{pattern}/ occurs in none of the {len(files)} files of {package.__name__}")


def own_methods(of: type) -> Answer:
    """Answer no, because the class has these public methods and no others."""
    names = [name for name, value in vars(of).items() if callable(getattr(value, "__func__", value))]
    return Answer("no", f"the methods of {of.__name__} are {', '.join(n for n in names if not n.startswith('_'))}")


def become_a_world_of_one() -> None:
    """Leave the process group (collective), and start one of this rank alone."""
    dist.barrier()
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=10))
