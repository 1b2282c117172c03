"""Wrappers of a model that take a shard for a replica: one of them tells that it is at work, by being asked."""

from collections.abc import Sequence

from torch.nn.parallel import DistributedDataParallel

from dist_s2s.sharded.exchange.shard import TableShard

HOW_TO_EXCLUDE = (
    "build the model anew and exclude its tables: exclude_sharded(model) before DistributedDataParallel(model) or "
    "accelerator.prepare(model), fully_shard(model, ignored_params=exclude_sharded(model))"
)


def wrapper_error(tables: Sequence[TableShard]) -> Exception | None:
    """Return what is wrong if DistributedDataParallel, in whose forward this is, has a shard among its own parameters.

    It has copied rank 0's shard over all others, and would average the gradients of different rows.
    """
    wrapper = getattr(DistributedDataParallel, "_active_ddp_module", None)  # private: the module whose forward runs
    if wrapper is None:
        return None
    for table in tables:
        if is_sharded(table) and any(table.weight is mine for mine in wrapper._module_parameters):
            name = next((name for name, mine in wrapper.module.named_parameters() if mine is table.weight), "weight")
            return RuntimeError(
                f"{name} is a shard of {table.partition.num_rows} x {table.embedding_dim} rows, but "
                "DistributedDataParallel takes it for a replica: it copies rank 0's rows over those of the others, and "
                f"averages gradients of different rows; {HOW_TO_EXCLUDE}"
            )
    return None


def is_sharded(table: TableShard) -> bool:
    """Tell whether other ranks have other rows, or take part in the gradients of the same ones."""
    return table.group.size > 1 or table.group.replicas.size > 1
