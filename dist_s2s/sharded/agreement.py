"""How ranks find out that they agree, or all learn of one rank's trouble."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

_TEXT_BYTES = 512
# A rank's status in a header: 0, or one more than the place of its error here.
_ERRORS: tuple[type[Exception], ...] = (IndexError, TypeError, ValueError, RuntimeError)
_REPORT_SECONDS = 1.5  # how long the ranks wait for each other's report once a collective has failed


def status_of(error: Exception | None) -> int:
    """The number that tells other ranks of ``error``: an IndexError, TypeError, ValueError or RuntimeError."""
    return 0 if error is None else 1 + next(number for number, kind in enumerate(_ERRORS) if isinstance(error, kind))


def raise_first(
    statuses: Sequence[int],
    error: Exception | None,
    group: dist.ProcessGroup | None,
    device: torch.device | str | None,
) -> None:
    """Raises the error of the first rank that has one, on every rank; returns if no rank has.

    statuses: ``status_of`` each rank's error, which all ranks know already: so all of them call the one all_gather of
    the texts, or none does. error: this rank's own.
    """
    if not any(statuses):
        return
    if group is None:
        assert error is not None
        raise error
    texts = gather_texts("" if error is None else str(error), group, device)
    first = next(rank for rank, status in enumerate(statuses) if status)
    raise _ERRORS[statuses[first] - 1](texts[first])


def raise_together(error: Exception | None, group: dist.ProcessGroup | None, device: torch.device | str | None) -> None:
    """Raises the error of the first rank that has one, on every rank (one all_gather; two if there is an error)."""
    if group is not None:
        status = torch.tensor([status_of(error)], device=_device_of(group, device))
        raise_first([int(theirs) for theirs in gather(status, group)], error, group, device)
    elif error is not None:
        raise error


def gather(tensor: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    """An all_gather: the tensor of each rank, by rank. All have the same shape and dtype.

    It is made of one all_to_all, because gloo passes an all_gather on from rank to rank: a rank that waits for its
    neighbour would not learn that one behind it has died. That is slower, too.
    """
    copies = tensor.expand(dist.get_world_size(group), *tensor.shape).contiguous()
    gathered = torch.empty_like(copies)
    with missing_ranks_named(group):
        dist.all_to_all_single(gathered, copies, group=group)
    return list(gathered)


def gather_texts(text: str, group: dist.ProcessGroup, device: torch.device | str | None) -> list[str]:
    """The text of each rank, cut to 512 bytes of UTF-8, on every rank (one all_gather)."""
    encoded = text.encode()[:_TEXT_BYTES]
    message = torch.tensor(list(encoded.ljust(_TEXT_BYTES, b"\0")), dtype=torch.uint8, device=_device_of(group, device))
    return [bytes(part.tolist()).rstrip(b"\0").decode(errors="replace") for part in gather(message, group)]


def check_same_on_all_ranks(
    settings: Mapping[str, object], group: dist.ProcessGroup, device: torch.device | str | None
) -> None:
    """Raises the same ValueError on every rank if a setting differs between two of them (one all_gather)."""
    lines = [text.split("\n") for text in gather_texts("\n".join(map(str, settings.values())), group, device)]
    for rank, values in enumerate(lines):
        for name, first, value in zip(settings, lines[0], values, strict=False):
            if value != first:
                raise ValueError(
                    f"{name} must be the same on every rank, but is {first} on rank 0 and {value} on rank {rank}"
                )


@contextmanager
def missing_ranks_named(group: dist.ProcessGroup) -> Iterator[None]:
    """Around a collective: if a rank died or never came, all ranks raise the same RuntimeError that names it.

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


def _device_of(group: dist.ProcessGroup, device: torch.device | str | None) -> torch.device | str | None:
    if device is None and dist.get_backend(group) == "nccl":  # it moves no CPU tensors
        return torch.device("cuda", torch.cuda.current_device())
    return device
