"""How ranks find out that they agree, or all learn of one rank's trouble."""

from collections.abc import Mapping

import torch
import torch.distributed as dist

_TEXT_BYTES = 512


def gather_texts(text: str, group: dist.ProcessGroup, device: torch.device | str | None) -> list[str]:
    """The text of each rank, cut to 512 bytes of UTF-8, on every rank (one all_gather)."""
    if device is None and dist.get_backend(group) == "nccl":  # it moves no CPU tensors
        device = torch.device("cuda", torch.cuda.current_device())
    encoded = text.encode()[:_TEXT_BYTES]
    message = torch.tensor(list(encoded.ljust(_TEXT_BYTES, b"\0")), dtype=torch.uint8, device=device)
    gathered = [torch.empty_like(message) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, message, group=group)
    return [bytes(part.tolist()).rstrip(b"\0").decode(errors="replace") for part in gathered]


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
