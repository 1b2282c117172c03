"""Who can take part in lookup_bench.py: names, titles and updates of the contenders.

Ours are named by transport, then by what differs from the usual: shared_memory+round_robin is divided round robin,
collective+duplicates lets repeated ids travel, shared_memory+bf16 has rows and gradients travel in bfloat16.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import compress, product
from typing import Any

import torch
import torch.distributed as dist

from lookup.problem import Contender, Problem, Update

_OPTIONS: dict[str, dict[str, Any]] = {
    "round_robin": {"layout": "round_robin"},
    "duplicates": {"deduplicate": False},
    "bf16": {"comm_dtype": torch.bfloat16},
}
TRANSPORTS = ("shared_memory", "collective")
FLOOR = "floor"


def _variants() -> dict[str, dict[str, Any]]:
    """Return the settings of DistributedEmbedding for every combination of transport and options, by its name."""
    variants: dict[str, dict[str, Any]] = {}
    for transport, *chosen in product(TRANSPORTS, *[(False, True)] * len(_OPTIONS)):
        settings = {"transport": transport, "layout": "contiguous"}
        options = list(compress(_OPTIONS, chosen))
        for option in options:
            settings |= _OPTIONS[option]
        variants["+".join([str(transport), *options])] = settings
    return variants


@dataclass(frozen=True)
class System:
    """A contender.

    Attributes:
        made_by: The function that makes it, in a contenders_*.py; it is imported where it is used.
        settings: Its further arguments.
        copies: How many copies of the table the ranks hold together at their peak, or each of them if ``each_rank``.
        updates: The optimizers that it has, of which the last is raced. A dense gradient gets SGD, whose update of a
            whole table is the cheapest.
        devices: The types of device on which it runs.
        alone: Whether it is for one rank. Then it takes part only if it is named, or on CUDA.
        pools: Whether it can sum the rows of bags.
    """

    title: str
    made_by: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 1
    each_rank: bool = False
    updates: tuple[Update, ...] = ("SGD", "RowWiseAdagrad")
    devices: tuple[str, ...] = ("cpu",)
    alone: bool = False
    pools: bool = False


OURS = _variants()
_SPARSE, _DENSE = {"sparse": True}, {"sparse": False}
_ANY: Any = {"devices": ("cpu", "cuda")}
_SGD: Any = {"updates": ("SGD",)}
_OTHERS = {
    FLOOR: System("local rows (the floor)", "ours.floor", updates=("RowWiseAdagrad",), pools=True, **_ANY),
    "torchrec": System("TorchRec, row-wise", "torchrec.torchrec", pools=True, **_ANY),
    "megatron": System("Megatron, masked all_reduce", "torch.megatron"),
    "dtensor": System("DTensor RowwiseParallel, SGD", "torch.dtensor", copies=4, **_SGD),
    "ddp_sparse": System("DDP, sparse gradient", "torch.ddp", _SPARSE, each_rank=True),
    "ddp_dense": System("DDP, dense gradient, SGD", "torch.ddp", _DENSE, copies=3, each_rank=True, **_SGD),
    "embedding_sparse": System("nn.Embedding, sparse gradient", "torch.embedding", _SPARSE, alone=True, **_ANY),
    "embedding_dense": System(
        "nn.Embedding, dense gradient, SGD", "torch.embedding", _DENSE, copies=2, alone=True, **_SGD, **_ANY
    ),
}
SYSTEMS = {
    name: System(f"ours, {name.replace('_', ' ').replace('+', ', ')}", "ours.ours", settings, pools=True, **_ANY)
    for name, settings in OURS.items()
} | _OTHERS


def default_names(sweep: bool, device: str = "cpu", pooled: bool = False) -> list[str]:
    """Return who takes part by default: TorchRec only where it is installed, round robin not in a sweep.

    On CUDA there is one rank, for which ours are all alike. Of bags of ids, only who can sum their rows.
    """
    others = [name for name in _OTHERS if name != "torchrec" or find_spec("torchrec") is not None]
    others = [name for name in others if SYSTEMS[name].pools or not pooled]
    if device == "cuda":
        return ["collective", *(name for name in others if device in SYSTEMS[name].devices)]
    layouts = ("",) if sweep else ("", "+round_robin")
    ours = [f"{transport}{layout}" for layout in layouts for transport in TRANSPORTS]
    return [*ours, *(name for name in others if not SYSTEMS[name].alone)]


def build(name: str, update: Update, problem: Problem, group: dist.ProcessGroup) -> Contender:
    """Build a contender on all ranks of ``group`` (collective); all but the floor start from the same global table."""
    module, _, function = SYSTEMS[name].made_by.partition(".")
    make = getattr(import_module(f"lookup.contenders_{module}"), function)
    contender: Contender = make(update, problem, group, **SYSTEMS[name].settings)
    return contender


def fitting(names: Sequence[str], problem: Problem, ranks: int, available_bytes: float) -> list[str]:
    """Return the contenders that fit into memory together, leaving out the largest."""
    table = 4 * problem.num_embeddings * problem.embedding_dim
    copies = {name: SYSTEMS[name].copies * (ranks if SYSTEMS[name].each_rank else 1) for name in names}
    while copies and table * sum(copies.values()) > available_bytes:
        del copies[max(reversed(copies), key=copies.__getitem__)]
    return list(copies)
