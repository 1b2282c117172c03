"""What shared memory holds in a process, as Linux tells it: mailboxes, and tables' rows."""

import os
from contextlib import suppress
from pathlib import Path


def descriptors(process: int | str = "self") -> set[str]:
    """The shared memory and the sockets that a process has open: "memory:[inode]", "socket:[inode]"."""
    found = set()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was the listing's own
            link = os.readlink(entry)
            if link.startswith("socket:"):
                found.add(link)
            elif "memfd:dist_s2s" in link:
                found.add(f"memory:[{entry.stat().st_ino}]")
    return found


def mapped_memory(process: int | str = "self") -> set[str]:
    """Inodes of the shared memory that a process has mapped."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:dist_s2s" in line}


def memory_mapped_anywhere() -> set[str]:
    """Inodes of the shared memory that any process has mapped that is not another user's."""
    inodes: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(PermissionError, FileNotFoundError, ProcessLookupError):  # another user's, or it has ended
                inodes |= mapped_memory(process.name)
    return inodes


def named_sockets() -> set[str]:
    """Inodes of all sockets on this machine that have our kind of name."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[6] for line in lines if "@dist_s2s-" in line}
