"""Which rank is missing when a collective has failed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

_REPORT_SECONDS = 1.5  # how long the ranks wait for each other's report once a collective has failed


@contextmanager
def missing_ranks_named(group: dist.ProcessGroup) -> Iterator[None]:
    """Run a collective within; if a rank died or never came, raise the same RuntimeError, which names it, on all ranks.

    Every rank whose collective has failed reports to the group's store, and waits a little for the others. Who has not
    reported by then is missing; the first rank to conclude so decides the text, also for one that comes too late.
    """
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(_verdict(group, str(error))) from error


def _verdict(group: dist.ProcessGroup, reason: str) -> str:
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    try:
        store = group.get_group_store()
        store.set(f"failed/{rank}", "1")
        deadline = time.monotonic() + _REPORT_SECONDS
        missing = [peer for peer in range(world_size) if peer != rank]
        while missing and time.monotonic() < deadline:
            time.sleep(0.02)
            missing = [peer for peer in missing if not store.check([f"failed/{peer}"])]
        if missing:
            names = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
            verdict = (
                f"{names} of {world_size} did not take part in a collective of the table within the process group's "
                "time-out, or died; all ranks must call the table equally often"
            )
        else:
            verdict = f"a collective of the table failed: {reason}"
        return bytes(store.compare_set("failed/verdict", "", verdict)).decode()
    except RuntimeError as error:  # the store was in the process that died
        return f"a collective of the table failed: {reason}; and which rank is missing cannot be told: {error}"
