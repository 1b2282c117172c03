"""Tables inside of models that DistributedDataParallel, accelerate or FSDP wraps as a whole."""

from torch import nn

from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.wrappers import is_sharded


def exclude_sharded(model: nn.Module) -> set[nn.Parameter]:
    """Keep wrappers of a model from taking its tables' shards for replicas; call it before wrapping (local).

        exclude_sharded(model)
        model = DistributedDataParallel(model)  # or accelerator.prepare(model)

        fully_shard(model, ignored_params=exclude_sharded(model))

    DistributedDataParallel, and accelerate, which uses it, read the names of parameters that they are to leave alone
    from an attribute of the module that they wrap. It is set on the model and on each of its modules with a table
    inside, beside names that are there already. FSDP wants the parameters themselves. From now on errors call the
    tables as the model does.

    Returns:
        The weights of all tables of which other ranks hold other rows, or replicas.
    """
    for name, module in model.named_modules():
        if isinstance(module, DistributedEmbedding):
            module.name = name or None
    weights = set()
    for module in model.modules():
        names = [
            f"{prefix}.weight" if prefix else "weight"
            for prefix, inner in module.named_modules(remove_duplicate=False)
            if isinstance(inner, DistributedEmbedding) and is_sharded(inner)
        ]
        if names:
            ignored = getattr(module, "_ddp_params_and_buffers_to_ignore", ())
            module._ddp_params_and_buffers_to_ignore = sorted({*ignored, *names})  # type: ignore[assignment]
        if isinstance(module, DistributedEmbedding) and is_sharded(module):
            weights.add(module.weight)
    return weights
