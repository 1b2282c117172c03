"""Where and when a figure was measured."""

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import dist_s2s


def provenance() -> dict[str, object]:
    """Return what a results file says beside its figures: date, command, machine and versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # such as AVX2, on which kernels depend
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dist_s2s": dist_s2s.__version__,
    }


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
