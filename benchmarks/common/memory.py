"""Memory of this process as Linux tells it; without dist_s2s, because a peer's program uses it too.

A page that several processes have mapped, such as a row of another rank's shard, is resident in each of them. It counts
here as in the kernel's "proportional set size": divided among them, so that ranks add up to what the machine spends.
"""

from pathlib import Path

MIB, GIB = 2**20, 2**30
_SELF = Path("/proc/self")


def resident() -> int:
    """Return the bytes of this process now."""
    return _field("smaps_rollup", "Pss")


def peak() -> int:
    """Return the most bytes so far; shared ones are divided among their present users, who must still be there."""
    private = _field("status", "VmHWM") - _field("status", "RssShmem") - _field("status", "RssFile")
    return private + _field("smaps_rollup", "Pss_Shmem") + _field("smaps_rollup", "Pss_File")


def available() -> int:
    """Return the bytes that new processes may take without swapping."""
    return _field("../meminfo", "MemAvailable")


def _field(file: str, name: str) -> int:
    lines = (_SELF / file).read_text(encoding="utf-8").splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(value) * 1024
