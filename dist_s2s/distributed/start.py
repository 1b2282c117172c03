"""Starting up as one of several ranks, and leaving."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from dist_s2s import UserError
from dist_s2s.distributed.memory import keep_compiled_products, keep_freed_memory
from dist_s2s.distributed.ranks import Ranks

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_OTHER_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # which accelerate takes for torchrun's
_SECONDS_FOR_GLOO = 0.1  # its threads need microseconds, but may have to wait for a core


def check_torchrun() -> tuple[int, int]:
    """Return (rank, world size) as torchrun gave them in the environment; (0, 1) without it."""
    names = ("RANK", "WORLD_SIZE")
    try:
        rank, world_size = (int(os.environ.get(name, default)) for name, default in zip(names, "01", strict=True))
    except ValueError:
        given = " ".join(f"{name}={os.environ.get(name)}" for name in names)
        raise UserError(f"RANK and WORLD_SIZE must be whole numbers, but are {given}; start with torchrun") from None
    if not 0 <= rank < world_size:
        raise UserError(f"RANK is {rank}, which is outside [0, WORLD_SIZE={world_size}); start with torchrun")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK") if name not in os.environ]
    if world_size > 1 and missing:
        raise UserError(f"WORLD_SIZE is {world_size}, but {', '.join(missing)} is not set; start with torchrun")
    for name in _OTHER_LAUNCHERS:
        if os.environ.get(name, str(world_size)) != str(world_size):
            raise UserError(
                f"WORLD_SIZE is {world_size}, but {name} is {os.environ[name]}, as another launcher has set it; start "
                "with torchrun"
            )
    return rank, world_size


def threads_for_each_rank() -> int:
    """Return OMP_NUM_THREADS, or the cores that this process may use, divided by the ranks of its host.

    torchrun sets OMP_NUM_THREADS to 1 for several ranks if nobody has set it, which would leave cores idle: then a 1
    is not taken for a wish.
    """
    ranks, wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > (ranks > 1):
        return int(wanted)
    return max(1, available_cores() // ranks)


def available_cores() -> int:
    """Return the cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def joined_ranks(threads: int | None = None) -> Iterator[Ranks]:
    """Join the process group that torchrun describes: gloo on CPU, nccl on CUDA. A single process joins none.

    Leaving gives the process back its number of threads, and the way in which it computes with the smallest numbers.
    What is freed stays with the process, and so does what oneDNN compiles, see memory.py.

    Args:
        threads: CPU threads of this rank; None: see threads_for_each_rank.
    """
    rank, world_size = check_torchrun()
    keep_freed_memory()
    keep_compiled_products()
    with _arithmetic_of_a_rank(threads_for_each_rank() if threads is None else threads):
        yield from _joined(rank, world_size)


def _joined(rank: int, world_size: int) -> Iterator[Ranks]:
    # torch's Adagrad builds sparse tensors without saying whether they are to be checked, and would warn on every rank.
    torch.sparse.check_sparse_tensor_invariants.disable()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        gpus, ranks_here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if ranks_here > gpus:
            raise UserError(
                f"{ranks_here} ranks are on this machine, but only {gpus} of its GPUs can be seen: start {gpus}, or "
                "set CUDA_VISIBLE_DEVICES= (to nothing) to compute on the CPU"
            )
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    group = plan_group = None
    if world_size > 1:
        _use_loopback_on_a_single_host()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
        dist.barrier()  # a rank that leaves with an error must not take the store along before all have joined
        group = dist.new_group(timeout=COLLECTIVE_TIMEOUT)
        plan_group = dist.new_group(timeout=COLLECTIVE_TIMEOUT, backend="gloo")
    try:
        yield Ranks(rank, world_size, device, group, plan_group)
    except (UserError, SystemExit):  # which all ranks raise together
        leave()
        raise
    # Not after any other error, which may be this rank's alone: to leave the group can mean to wait for the others.
    leave()


@contextmanager
def _arithmetic_of_a_rank(threads: int) -> Iterator[None]:
    threads_before, flushed_before = torch.get_num_threads(), not bool(torch.tensor(1e-40) > 0)
    torch.set_num_threads(threads)
    # A peaked softmax has gradients below the smallest normal number, which a CPU computes with 25 times slower.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(flushed_before)


def leave() -> None:
    """End all process groups; for when this rank is through with its collectives.

    gloo's threads let go of a collective's tensors a moment after it has returned, and need Python's lock for that. One
    that asks for it while the interpreter ends aborts the process (https://github.com/pytorch/pytorch/issues/190489),
    so the lock is left to them first.
    """
    if dist.is_initialized():
        time.sleep(_SECONDS_FOR_GLOO)
        dist.destroy_process_group()


def _use_loopback_on_a_single_host() -> None:
    """Where all ranks run on this host, keep gloo and nccl from listening on any other interface."""
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        return
    interface = loopback()
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def loopback() -> str | None:
    """Return the interface by which this host reaches itself alone, if it has one of the usual names."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
