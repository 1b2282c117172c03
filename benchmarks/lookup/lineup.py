"""Who can take part in lookup_bench.py: names, titles and updates of the contenders.

Ours are named by transport, then by what differs from the usual: shared_memory+round_robin is divided round robin,
collective+duplicates lets repeated ids travel, shared_memory+bf16 has rows and gradients travel in bfloat16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import compress, product
from typing import Any

import torch
import torch.distributed as dist

from lookup.problem import Contender, Problem, Update

_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("round_robin", {"layout": "round_robin"}),
    ("duplicates", {"deduplicate": False}),
    ("bf16", {"comm_dtype": torch.bfloat16}),
)
TRANSPORTS = ("shared_memory", "collective")
FLOOR = "floor"


def _variants() -> dict[str, dict[str, Any]]:
    """Return the settings of DistributedEmbedding for every combination of transport and options, by its name."""
    variants: dict[str, dict[str, Any]] = {}
    for transport in TRANSPORTS:
        for chosen in product((False, True), repeat=len(_OPTIONS)):
            options = list(compress(_OPTIONS, chosen))
            settings = {"transport": transport, "layout": "contiguous"}
            for _, setting in options:
                settings |= setting
            variants["+".join([transport, *(name for name, _ in options)])] = settings
    return variants


def _words(name: str) -> str:
    return name.replace("_", " ").replace("+", ", ")


OURS = _variants()


@dataclass(frozen=True)
class System:
    """A contender; its function in ``module`` has its name.

    Attributes:
        copies: How many copies of the table the ranks hold together at their peak, or each of them if ``each_rank``.
        devices: The types of device on which it runs.
        alone: Whether it is for one rank. Then it takes part only if it is named, or on CUDA.
        updates: The optimizers that it has, of which the last is raced. A dense gradient gets SGD, whose update of a
            whole table is the cheapest.
    """

    title: str
    module: str = "lookup.contenders_torch"
    copies: int = 1
    each_rank: bool = False
    updates: tuple[Update, ...] = ("SGD", "RowWiseAdagrad")
    devices: tuple[str, ...] = ("cpu",)
    alone: bool = False


_EVERYWHERE = ("cpu", "cuda")
_OTHERS = {
    FLOOR: System("local rows (the floor)", "lookup.contenders_ours", updates=("RowWiseAdagrad",), devices=_EVERYWHERE),
    "torchrec": System("TorchRec, row-wise", "lookup.contenders_torchrec", devices=_EVERYWHERE),
    "megatron": System("Megatron, masked all_reduce"),
    "dtensor": System("DTensor RowwiseParallel, SGD", copies=4, updates=("SGD",)),
    "ddp_sparse": System("DDP, sparse gradient", each_rank=True),
    "ddp_dense": System("DDP, dense gradient, SGD", copies=3, each_rank=True, updates=("SGD",)),
    "embedding_sparse": System("nn.Embedding, sparse gradient", devices=_EVERYWHERE, alone=True),
    "embedding_dense": System(
        "nn.Embedding, dense gradient, SGD", copies=2, updates=("SGD",), devices=_EVERYWHERE, alone=True
    ),
}
SYSTEMS = {
    name: System(f"ours, {_words(name)}", "lookup.contenders_ours", devices=_EVERYWHERE) for name in OURS
} | _OTHERS


def default_names(sweep: bool, device: str = "cpu") -> list[str]:
    """Return who takes part by default: TorchRec only where it is installed, round robin not in a sweep.

    On CUDA there is one rank, for which ours are all alike.
    """
    if device == "cuda":
        return [name for name in ("collective", *_OTHERS) if device in SYSTEMS[name].devices and _is_there(name)]
    ours = list(TRANSPORTS) if sweep else [f"{t}{layout}" for layout in ("", "+round_robin") for t in TRANSPORTS]
    return [*ours, *(name for name, system in _OTHERS.items() if not system.alone and _is_there(name))]


def _is_there(name: str) -> bool:
    return name != "torchrec" or find_spec("torchrec") is not None


def build(name: str, update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build a contender on all ranks of ``group`` (collective); all but the floor start from the same global table."""
    module = import_module(SYSTEMS[name].module)
    make = partial(module.ours, **OURS[name]) if name in OURS else getattr(module, name)
    contender: Contender = make(update, problem, group)
    return contender


def fitting(names: Sequence[str], problem: Problem, ranks: int, available_bytes: float) -> list[str]:
    """Return the contenders that fit into memory together, leaving out the largest."""
    table = 4 * problem.num_embeddings * problem.embedding_dim
    copies = {name: SYSTEMS[name].copies * (ranks if SYSTEMS[name].each_rank else 1) for name in names}
    while copies and table * sum(copies.values()) > available_bytes:
        del copies[max(reversed(copies), key=copies.__getitem__)]
    return list(copies)
