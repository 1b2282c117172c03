"""Which group of ranks a table belongs to: tables of the same ranks share one, and so its connections.

Finding it is collective: the ranks compare what each of them still has, so that all take the group at hand or all make
a new one. It lasts as long as the tables do; what the library has opened for it is then given back.
"""

import atexit
import time
from datetime import timedelta
from functools import cache
from typing import get_args
from weakref import WeakValueDictionary, finalize

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from dist_s2s.sharded.transport.collective import CollectiveTransport
from dist_s2s.sharded.transport.group import RankGroup, local_group
from dist_s2s.sharded.transport.protocol import Subject, Transport, TransportName
from dist_s2s.sharded.transport.shared_memory.connect import NoSharedMemoryError, connect_mailboxes
from dist_s2s.sharded.transport.shared_memory.transport import SharedMemoryTransport

_FINDING = Subject("the finding of a table's group of ranks")
_SECONDS_FOR_GLOO = 0.1  # its threads need microseconds to let go of a collective, but may have to wait for a core
# Names of the groups that tables keep alive: process group (None: all ranks), replicas, transport and type of device.
_Key = tuple[dist.ProcessGroup | None, dist.ProcessGroup | None, str, str]
_groups: WeakValueDictionary[_Key, RankGroup] = WeakValueDictionary()


def find_local_group(device: torch.device) -> RankGroup:
    """Return the group of this process alone, which its tables share (local)."""
    return _local("auto", None, device)


def find_group(
    transport: TransportName,
    process_group: dist.ProcessGroup | None,
    device_mesh: DeviceMesh | None,
    device: torch.device,
) -> RankGroup:
    """Return the group of the ranks that are to share a table (collective over them).

    Args:
        transport: "auto" means shared memory where CPU ranks can prove that they share it, else collectives.
        process_group: the ranks. By default all of them, in a process group of the library's own, which has the default
            group's time-out; without an initialised default group this process alone.
        device_mesh: instead, a mesh of two dimensions: replicas, and shards.

    Raises:
        ValueError: on every rank, for another transport, or for "shared_memory" if the ranks do not share memory; on
            this rank alone if it is no member of the process group, or if the mesh does not have two dimensions.
    """
    replicas = None
    if device_mesh is not None:
        if process_group is not None:
            raise ValueError("give process_group or device_mesh, but not both")
        if device_mesh.ndim != 2:
            raise ValueError(f"device_mesh must have 2 dimensions, replicas and shards, but has {device_mesh.ndim}")
        replicas, process_group = device_mesh.get_group(0), device_mesh.get_group(1)
    is_alone = process_group is None and not (dist.is_available() and dist.is_initialized())
    if device.type == "meta":  # ranks exchange where the rows will be
        device = torch.device("cpu" if is_alone or dist.get_backend(process_group) != "nccl" else "cuda")
    if is_alone:
        return _local(transport, None, device)
    members = process_group or dist.group.WORLD
    for group in (members, replicas):
        if group is not None and dist.get_rank(group) < 0:
            raise ValueError(f"rank {dist.get_rank()} is not a member of the table's process group")
    assert members is not None
    _wait_for_gloo_at_exit()
    if replicas is not None and dist.get_world_size(replicas) == 1:
        replicas = None
    if dist.get_world_size(members) == 1:
        return _local(transport, replicas, device)
    meeting_point = _collective(members, device)
    meeting_point.check_same({"transport": transport, "device": device.type}, _FINDING)
    _check_name(transport)
    known = _groups.get((process_group, replicas, transport, device.type))
    if known is not None and not _is_registered(known.process_group):
        known = None  # its process group was destroyed
    all_know = all(has for (has,) in meeting_point.agree(_FINDING, None, [known is not None]))
    return known if known is not None and all_know else _make_group(transport, process_group, replicas, device)


def make_background_group(process_group: dist.ProcessGroup, transport: TransportName) -> RankGroup:
    """Return a group of CPU ranks for one purpose alone, which no table shares (collective)."""
    return RankGroup(_make_transport(transport, process_group, torch.device("cpu")), torch.device("cpu"), process_group)


def new_process_group(backend: str | None = None) -> dist.ProcessGroup:
    """Return a process group of all ranks with the default group's time-out (collective)."""
    group: dist.ProcessGroup = dist.new_group(timeout=_timeout_of(dist.group.WORLD), backend=backend)
    return group


def give_back(process_group: dist.ProcessGroup) -> None:
    """Destroy a process group that the library made, unless that has happened; calls no collectives."""
    if dist.is_initialized() and _is_registered(process_group):
        # Its threads may want the interpreter, which the destructor holds while it waits for them (pytorch#190489).
        time.sleep(_SECONDS_FOR_GLOO)
        dist.destroy_process_group(process_group)


@cache
def _wait_for_gloo_at_exit() -> None:
    """Have the interpreter wait before it ends: a thread that then wants it aborts the process (pytorch#190489)."""
    atexit.register(time.sleep, _SECONDS_FOR_GLOO)


def _check_name(transport: TransportName) -> None:
    if transport not in get_args(TransportName):
        raise ValueError(f"transport must be one of {', '.join(get_args(TransportName))}, but is {transport!r}")


def _local(transport: TransportName, replicas: dist.ProcessGroup | None, device: torch.device) -> RankGroup:
    """Return the group of a rank that holds all rows itself; tables of one lookup must share it."""
    _check_name(transport)
    key = (None, replicas, "local", device.type)
    group = _groups.get(key)
    if group is None:
        group = _groups[key] = local_group(device, None if replicas is None else _collective(replicas, device))
    return group


def _make_group(
    transport: TransportName,
    given: dist.ProcessGroup | None,
    replicas: dist.ProcessGroup | None,
    device: torch.device,
) -> RankGroup:
    process_group = new_process_group() if given is None else given
    replica_group = None if replicas is None else _collective(replicas, device)
    group = RankGroup(_make_transport(transport, process_group, device), device, process_group, replica_group)
    if given is None:
        finalize(group, give_back, process_group).atexit = False
    # Tables that want shared memory and tables that take what there is have the same mailboxes.
    names = {transport, "auto", "shared_memory"} if group.transport.name == "shared_memory" else {transport}
    for name in names:
        _groups[(given, replicas, name, device.type)] = group
    return group


def _make_transport(name: TransportName, process_group: dist.ProcessGroup, device: torch.device) -> Transport:
    if name == "collective" or (name == "auto" and device.type != "cpu"):
        return CollectiveTransport(process_group, device)
    if device.type != "cpu":
        raise ValueError(f"shared memory is for tables on the CPU, but this one is on {device}; use transport auto")
    try:
        timeout = _timeout_of(process_group).total_seconds()
        return SharedMemoryTransport(connect_mailboxes(_collective(process_group, device), timeout))
    except NoSharedMemoryError as error:
        if name == "shared_memory":
            raise ValueError(f"{error}; choose the transport auto or collective") from None
    return CollectiveTransport(process_group, device)


def _collective(process_group: dist.ProcessGroup, device: torch.device) -> RankGroup:
    return RankGroup(CollectiveTransport(process_group, device), device, process_group)


def _is_registered(process_group: dist.ProcessGroup | None) -> bool:
    try:
        return dist.get_rank(process_group) >= 0
    except ValueError:
        return False


def _timeout_of(process_group: dist.ProcessGroup | None) -> timedelta:
    """Return its time-out, which torch tells through no public name."""
    assert process_group is not None
    backends = [process_group._get_backend(device) for device in process_group._device_types]
    timeout: timedelta = backends[0].options._timeout
    return timeout
