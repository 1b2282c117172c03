"""Which transport the ranks of a group use, and one of each kind for a group, however many tables share it."""

from typing import get_args
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from dist_s2s.sharded.collective_transport import CollectiveTransport
from dist_s2s.sharded.connect_mailboxes import NoSharedMemoryError, connect_mailboxes
from dist_s2s.sharded.shared_memory_transport import SharedMemoryTransport
from dist_s2s.sharded.transport import LocalTransport, Transport, TransportName

# What connecting came to, by group: tables of one group share its mailboxes, and what failed is not tried again.
_connected: WeakKeyDictionary[dist.ProcessGroup, SharedMemoryTransport | NoSharedMemoryError] = WeakKeyDictionary()


def choose_transport(name: TransportName, group: dist.ProcessGroup | None, device: torch.device) -> Transport:
    """The transport for tensors on ``device`` between the ranks of ``group`` (collective, the first time for a group).

    name: the same on every rank. "auto" means shared memory where the ranks share it, else collectives.
    Raises ValueError on every rank for another name, and for "shared_memory" if they do not share memory.
    """
    if name not in get_args(TransportName):
        raise ValueError(f"transport must be one of {', '.join(get_args(TransportName))}, but is {name!r}")
    if group is None:
        return LocalTransport()
    if name == "collective" or (name == "auto" and device.type != "cpu"):
        return CollectiveTransport(group, device)
    if device.type != "cpu":
        raise ValueError(f"shared memory is for tables on the CPU, but this one is on {device}; use transport auto")
    shared = _connected.get(group)
    if shared is None:
        try:
            shared = SharedMemoryTransport(connect_mailboxes(group))
        except NoSharedMemoryError as error:
            shared = error.with_traceback(None)  # whose frames would keep the group alive
        _connected[group] = shared
    if isinstance(shared, SharedMemoryTransport):
        return shared
    if name == "shared_memory":
        raise ValueError(f"{shared}; choose the transport auto or collective")
    return CollectiveTransport(group, device)
