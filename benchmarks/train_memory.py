"""Resident memory of this process, for train_bench.py's programs: some run in a peer's environment without dist_s2s."""

from pathlib import Path


def resident(field: str) -> int:
    """Bytes: ``VmRSS``, resident now, or ``VmHWM``, the most so far. Reads /proc, and so needs Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values[field].removesuffix("kB")) * 1024


def available() -> int:
    """Bytes that new processes may take without swapping. Reads /proc, and so needs Linux."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(value) * 1024
