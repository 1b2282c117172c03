"""How figures are shown and kept: tables on the console, and JSON that says where and when they were measured."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import dist_s2s
from dist_s2s.distributed.start import available_cores

_PLACES = ("--json", "--plot", "--folder", "--peers_folder")


class Disagreement(Exception):
    """Contenders that do not compute the same thing, so that there are no figures."""


def print_table(
    title: str, labels: Sequence[str], figures: Sequence[str], rows: Iterable[Sequence[str] | None]
) -> None:
    """Print a table of texts.

    Args:
        title: What stands above it.
        labels: Headings of the first columns, aligned left.
        figures: Headings of the other columns, aligned right.
        rows: The cells of each row; None draws a line.
    """
    table = Table(title=title)
    for heading in labels:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right")
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    console = Console()
    console.width = max(console.width, 140)  # a pipe has 80, which would cut names and break lines
    console.print(table)


def provenance() -> dict[str, object]:
    """Return what a results file says beside its figures: date, command, machine and versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_without_places(sys.argv[1:])]),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # such as AVX2, on which kernels depend
        "cores": available_cores(),  # that this process may use
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dist_s2s": dist_s2s.__version__,
    }


def _without_places(words: Sequence[str]) -> list[str]:
    """Return the words of a command without those that say where on this machine something is written or kept."""
    kept, rest = list[str](), iter(words)
    for word in rest:
        option, equals, _ = word.partition("=")
        if option not in _PLACES:
            kept.append(word)
        elif not equals:
            next(rest, None)
    return kept


def _commit() -> str | None:
    """Return the commit that is measured, with a + if files have changed since; None without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit, changed = (
            subprocess.run([*git, *words], check=True, capture_output=True, text=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+" if changed else commit


def write_results(file: Path | None, figures: dict[str, Any]) -> None:
    """Write figures with their provenance as JSON, if a file was asked for."""
    if file is not None:
        file.write_text(json.dumps({**provenance(), **figures}, indent=2) + "\n", encoding="utf-8")


def _cpu_model() -> str:
    """Return the processor's name as Linux tells it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
