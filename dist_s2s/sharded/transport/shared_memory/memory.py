"""Memory without a name that processes share: memfds whose size nobody can change."""

import os


def make_memory(num_bytes: int) -> int:
    """Return the descriptor of a new, empty memfd, sealed at its size. Raises OSError."""
    import fcntl  # not on every platform; where it is missing nobody gets here

    memory = os.memfd_create("dist_s2s", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, num_bytes)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(memory)
        raise
    return memory


def check_memory(memory: int, num_bytes: int) -> None:
    """Raise OSError if another rank's memfd could shrink, or has another size: reading it might then kill us."""
    import fcntl

    seals, size = fcntl.fcntl(memory, fcntl.F_GET_SEALS), os.fstat(memory).st_size
    if not seals & fcntl.F_SEAL_SHRINK or size != num_bytes:
        raise OSError(f"shared memory must be sealed and have {num_bytes} bytes, but has seals {seals}, {size} bytes")
