"""Probes of where TorchRec can put the rows of a table."""

# mypy: disable-error-code="import-not-found"

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchrec import JaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.sharding_plan import column_wise, table_wise
from torchrec.modules.mc_modules import LFU_EvictionPolicy, MCHManagedCollisionModule

from common.torchrec_tables import Tables, undivided
from features.catalogue import Answer, whether
from features.evidence import rows
from features.lookup_checks import IDS


def other_shardings(group: dist.ProcessGroup) -> Answer:
    """By columns, and whole on rank 1."""
    held = []
    kinds: list[Callable[..., Any]] = [partial(column_wise, ranks=[0, 1]), partial(table_wise, rank=1)]
    for kind in kinds:
        tables = Tables([rows(132, 8)], sharding=kind)
        if not torch.equal(tables.lookup(IDS)[0], rows(132, 8)[IDS]):
            return Answer("no", "lookups give other rows than those of the ids")
        held.append([tuple(shard.tensor.shape) for shard in tables.shards()])
    return Answer("yes", f"rank {group.rank()} holds {held[0]} with column_wise, {held[1]} with table_wise")


def automatic_placement(group: dist.ProcessGroup) -> Answer:
    """EmbeddingShardingPlanner."""
    module = nn.Sequential(undivided())
    planner = EmbeddingShardingPlanner(topology=Topology(world_size=2, compute_device="cpu"))
    plan = planner.plan(module, [EmbeddingCollectionSharder()])
    return Answer("yes", f"EmbeddingShardingPlanner chooses {plan.plan['0']['t0'].sharding_type}")


def unbounded_ids(group: dist.ProcessGroup) -> Answer:
    """A managed collision module."""
    module = MCHManagedCollisionModule(
        zch_size=4,
        device=torch.device("cpu"),
        eviction_policy=LFU_EvictionPolicy(),
        eviction_interval=1,
        input_hash_size=2**62,
    )
    ids = {"f0": JaggedTensor(values=torch.tensor([10**12, 7]), lengths=torch.tensor([1, 1]))}
    module.profile(ids)
    mapped = module(ids)["f0"].values().tolist()
    distinct = len(set(mapped)) == 2 and max(mapped) < 4
    return whether(distinct, f"MCHManagedCollisionModule of 4 rows maps ids 10^12 and 7 to {mapped}")


def host_memory_cache(group: dist.ProcessGroup) -> Answer:
    """The kernel fused_uvm_caching means nothing without a GPU."""
    return Answer("not run", "needs CUDA")
