"""What the ranks of a run tell each other outside of the tables' exchange."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s import UserError

T = TypeVar("T")
_LONG_TASKS = count()  # of which all ranks have equally many
_SECONDS_BETWEEN_LOOKS = 0.2


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

    @classmethod
    def alone(cls) -> Self:
        """Return those of a process that is the only one, on the CPU."""
        return cls(0, 1, torch.device("cpu"), None)

    @property
    def is_first(self) -> bool:
        """True on the rank that prints and writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return element-wise sums over all ranks (one all_reduce)."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.group is not None:
            dist.all_reduce(total, group=self.group)
        return total.tolist()

    def sum_in_place(self, tensor: Tensor) -> None:
        """Replace a tensor, of the same shape and dtype on every rank, by the sum over all ranks (one all_reduce)."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)

    def all_agree(self, mine: bool) -> bool:
        """Tell whether it is True on every rank (one all_reduce)."""
        return self.sum([float(mine)])[0] == self.world_size

    def gather_texts(self, text: str) -> list[str]:
        """Return the text of each rank, on every rank (two all_gathers: the lengths, then the bytes)."""
        return [part.numpy().tobytes().decode() for part in self.gather_uneven(_as_bytes(text))]

    def gather_by_number(self, mine: Iterable[tuple[int, Any]]) -> dict[int, Any]:
        """Return what all ranks have, each value by its number, as JSON gives it back, on every rank (collective).

        Args:
            mine: this rank's share, with numbers that no other rank has, and values that JSON can hold.
        """
        return dict(found for part in self.gather_texts(json.dumps(list(mine))) for found in json.loads(part))

    def gather_numbers(self, numbers: list[int]) -> list[list[int]]:
        """Return each rank's integers, of any count, on every rank (two all_gathers: the counts, then the numbers)."""
        return [part.tolist() for part in self.gather_uneven(torch.tensor(numbers, dtype=torch.int64))]

    def gather_uneven(self, mine: Tensor) -> list[Tensor]:
        """Return each rank's tensor, [any count] of one dtype, on the CPU of every rank.

        Two all_gathers: the counts, then the elements, each with as much padding as the longest needs.
        """
        if self.group is None:
            return [mine]
        counts = [int(count) for count in self._gather(torch.tensor([len(mine)]))]
        padded = torch.cat((mine, mine.new_zeros(max(counts) - len(mine))))
        return [row[:count].cpu() for row, count in zip(self._gather(padded), counts, strict=True)]

    def exchange(self, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Send rows to every rank, and return those that come, on the CPU (one all_to_all).

        Args:
            rows: [sum of sent, dim], first those for rank 0.
            sent: how many of them go to each rank.
            received: how many come from each, which must be what that rank sends.

        Returns:
            Rows [sum of received, dim], first those of rank 0.
        """
        if self.group is None:
            return rows
        arrived = torch.empty(sum(received), rows.shape[1], dtype=rows.dtype, device=self.device)
        dist.all_to_all_single(arrived, rows.to(self.device), received, sent, group=self.group)
        return arrived.cpu()

    def on_first(self, function: Callable[[], T]) -> T:
        """Call ``function`` on the first rank alone; return its result, which JSON must be able to hold, on every rank.

        Collective, as ``together``, which also tells of errors.
        """
        result = self.together(lambda: json.dumps(function()) if self.is_first else "")
        found: T = json.loads(self.share(result.encode()))
        return found

    def on_first_for_long(self, function: Callable[[], T]) -> T:
        """Do as ``on_first``, which it ends with, for what may take longer than a collective may wait (collective).

        The other ranks look now and then into the group's store, where the first leaves word.
        """
        if self.group is None:
            return self.on_first(function)
        store, word = self.group.get_group_store(), f"long task {next(_LONG_TASKS)}"
        if not self.is_first:
            while not store.check([word]):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            return self.on_first(function)
        outcome = Future[T]()
        try:
            outcome.set_result(function())
        except Exception as error:
            outcome.set_exception(error)
        finally:
            store.set(word, "done")
        return self.on_first(outcome.result)

    def check_same(self, what: str, value: object) -> None:
        """Raise UserError on every rank if their values differ (two all_gathers)."""
        texts = self.gather_texts(str(value))
        other = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
        if other is not None:
            raise UserError(
                f"the {what} is {texts[0]} on rank 0, but {texts[other]} on rank {other}; "
                "all ranks must see the same files"
            )

    def share(self, content: bytes) -> bytes:
        """Return the first rank's bytes, on every rank (two broadcasts)."""
        if self.group is None:
            return content
        size = torch.tensor([len(content)], device=self.device)
        dist.broadcast(size, group=self.group, group_src=0)
        data = torch.empty(int(size), dtype=torch.uint8)
        if self.is_first and content:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        data = data.to(self.device)
        dist.broadcast(data, group=self.group, group_src=0)
        return data.cpu().numpy().tobytes()

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor of each rank; all have the same shape and dtype."""
        gathered = [torch.empty_like(tensor, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(gathered, tensor.to(self.device), group=self.group)
        return gathered

    def together(self, function: Callable[[], T]) -> T:
        """Call ``function`` on every rank; if any fails with a UserError or OSError, all raise the same UserError.

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


def _as_bytes(text: str) -> Tensor:
    return torch.tensor(np.frombuffer(text.encode(), dtype=np.uint8))
