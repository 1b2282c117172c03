"""Starting up as one of several ranks, and what the ranks tell each other outside of the tables' exchange."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_SECONDS_FOR_GLOO = 0.1  # its threads need microseconds, but may have to wait for a core


def check_torchrun() -> tuple[int, int]:
    """(rank, world size) as torchrun gave them in the environment; (0, 1) without it."""
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
    return rank, world_size


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of a run: number, device, and the process group for everything but DDP.

    ``plan_group`` is a gloo group of the same ranks, for what a background thread exchanges.
    Both groups are None in a run of one process. DDP keeps the default group to itself: its all_reduces start whenever
    a gradient is ready, and must not meet other collectives in the same group.
    """

    rank: int
    world_size: int
    device: torch.device
    group: dist.ProcessGroup | None
    plan_group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """True on the rank that prints and writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sums over all ranks (one all_reduce)."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.group is not None:
            dist.all_reduce(total, group=self.group)
        return total.tolist()

    def all_agree(self, mine: bool) -> bool:
        """True if it is True on every rank (one all_reduce)."""
        return self.sum([float(mine)])[0] == self.world_size

    def gather_texts(self, text: str) -> list[str]:
        """The text of each rank, on every rank (two all_gathers)."""
        return [bytes(part).decode() for part in self.gather_numbers(list(text.encode()))]

    def gather_numbers(self, numbers: list[int]) -> list[list[int]]:
        """Each rank's integers, of any count, on every rank (two all_gathers: the counts, then the numbers)."""
        if self.group is None:
            return [numbers]
        counts = [int(count) for count in self._gather(torch.tensor([len(numbers)]))]
        padded = torch.tensor(numbers + [0] * (max(counts) - len(numbers)), dtype=torch.int64)
        return [row[:count].tolist() for row, count in zip(self._gather(padded), counts, strict=True)]

    def check_same(self, what: str, value: object) -> None:
        """Raises UserError on every rank if their values differ (two all_gathers)."""
        texts = self.gather_texts(str(value))
        other = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
        if other is not None:
            raise UserError(
                f"the {what} is {texts[0]} on rank 0, but {texts[other]} on rank {other}; "
                "all ranks must see the same files"
            )

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each rank; all have the same shape and dtype."""
        gathered = [torch.empty_like(tensor, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(gathered, tensor.to(self.device), group=self.group)
        return gathered

    def together(self, function: Callable[[], T]) -> T:
        """Calls ``function`` on every rank; if any fails with a UserError or OSError, all raise the same UserError.

        Collective: every rank must call it. ``function`` itself may not call collectives.
        """
        result: T | None = None
        message = ""
        try:
            result = function()
        except UserError as error:
            message = str(error) or repr(error)  # never empty, which would mean that all is well
        except OSError as error:
            message = f"{error.strerror}: {error.filename}" if error.filename else str(error) or repr(error)
        messages = self.gather_texts(message)
        first = next((rank for rank, text in enumerate(messages) if text), None)
        if first is not None:
            everywhere = all(text == messages[first] for text in messages)
            raise UserError(messages[first] if everywhere else f"{messages[first]} (on rank {first})")
        return result  # type: ignore[return-value]


def threads_for_each_rank() -> int:
    """OMP_NUM_THREADS, or the cores that this process may use, divided by the ranks of its host.

    torchrun sets OMP_NUM_THREADS to 1 for several ranks if nobody has set it, which would leave cores idle: then a 1
    is not taken for a wish.
    """
    ranks, wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > (ranks > 1):
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks)


@contextmanager
def joined_ranks(
    mixed_precision: str = "no", threads: int | None = None, log_dir: Path | None = None
) -> Iterator[tuple["Accelerator", Ranks]]:
    """The process group that torchrun describes, joined through accelerate: gloo on CPU, nccl on CUDA.

    mixed_precision: accelerate's, "no" or "bf16". threads: CPU threads of this rank; None: see
    threads_for_each_rank.
    log_dir: where accelerate's TensorBoard tracker writes, if it is used.
    Raises UserError if accelerate does not see the world that torchrun started.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration

    _, world_size = check_torchrun()
    torch.set_num_threads(threads_for_each_rank() if threads is None else threads)
    # A peaked softmax has gradients below the smallest normal number, which a CPU computes with 25 times slower.
    torch.set_flush_denormal(True)
    # torch's Adagrad builds sparse tensors without saying whether they are to be checked, and would warn on every rank.
    torch.sparse.check_sparse_tensor_invariants.disable()
    _use_loopback_on_a_single_host()
    try:
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=mixed_precision,
            log_with=None if log_dir is None else "tensorboard",
            project_config=ProjectConfiguration(project_dir=log_dir, logging_dir=log_dir),
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT),
                DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            ],
        )
    except (ValueError, ImportError) as error:  # settings in ACCELERATE_* variables that cannot be had here
        raise UserError(f"accelerate could not start: {error}") from None
    if dist.is_initialized():
        dist.barrier()  # a rank that leaves with an error must not take the store along before all have joined
    if accelerator.num_processes != world_size:
        raise UserError(
            f"WORLD_SIZE is {world_size}, but accelerate started with num_processes = {accelerator.num_processes}; "
            "start with torchrun, and without settings of accelerate in the environment"
        )
    group = plan_group = None
    if world_size > 1:
        group = dist.new_group(timeout=COLLECTIVE_TIMEOUT)
        plan_group = dist.new_group(timeout=COLLECTIVE_TIMEOUT, backend="gloo")
    try:
        yield accelerator, Ranks(accelerator.process_index, world_size, accelerator.device, group, plan_group)
    except (UserError, SystemExit):  # which all ranks raise together
        leave()
        raise
    # Not after any other error, which may be this rank's alone: to leave the group can mean to wait for the others.
    leave()


def leave() -> None:
    """Ends all process groups; for when this rank is through with its collectives.

    gloo's threads let go of a collective's tensors a moment after it has returned, and need Python's lock for that. One
    that asks for it while the interpreter ends aborts the process (https://github.com/pytorch/pytorch/issues/190489),
    so the lock is left to them first.
    """
    if dist.is_initialized():
        time.sleep(_SECONDS_FOR_GLOO)
        dist.destroy_process_group()


def _use_loopback_on_a_single_host() -> None:
    """Where all ranks run on this host, gloo and nccl need no other interface, and should not listen on one."""
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        return
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
