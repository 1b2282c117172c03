"""The parameter that holds a shard: what a table attaches to it, and what it does not take for one."""

from torch import Tensor

from dist_s2s.sharded.exchange.shard import TableShard
from dist_s2s.sharded.rows.sparse import coalesced_rows
from dist_s2s.sharded.tables.guarded_weight import guard
from dist_s2s.sharded.tables.optimizer_state import remember
from dist_s2s.sharded.tables.wrappers import HOW_TO_EXCLUDE


def adopt(table: TableShard) -> None:
    """Attach to a parameter what the weight of a table needs, and let optimizers know whose weight it is (local)."""
    # A second backward before the optimizer's step adds to the gradient; torch would only append the rows.
    table.weight.register_post_accumulate_grad_hook(_coalesce_gradient)
    guard(table.weight, table.group.size > 1)
    remember(table)


def forget_hooks(weight: Tensor) -> None:
    """Make room for hooks on a parameter that swap_tensors has changed: torch then calls neither old nor new ones."""
    weight._post_accumulate_grad_hooks = None  # type: ignore[assignment]


def check_weight(weight: object) -> None:
    """Raise TypeError for what wrappers put in a parameter's place that are not told to leave a table alone.

    That is a DTensor, as of fully_shard, or a part or a copy of another tensor, as of FSDP's flat parameters and of
    nn.DataParallel's replicas.
    """
    if isinstance(weight, Tensor) and not weight.is_leaf:
        raise TypeError(
            "a table's weight was to be replaced by a tensor that is computed from another, as FSDP and "
            f"nn.DataParallel do; a table is sharded already, so {HOW_TO_EXCLUDE}"
        )
    if hasattr(weight, "device_mesh"):
        raise TypeError(
            "a table's weight was to be replaced by a DTensor, whose rows are divided among the ranks a second time; "
            f"a table is sharded already, so {HOW_TO_EXCLUDE}"
        )


def _coalesce_gradient(parameter: Tensor) -> None:
    """Merge rows that two backwards have appended; after a single one, restore the mark that torch drops."""
    gradient = parameter.grad
    if gradient is None or not gradient.is_sparse or gradient.is_coalesced():
        return
    indices, values = gradient._indices(), gradient._values()
    if bool((indices[0, 1:] > indices[0, :-1]).all()):
        gradient = coalesced_rows(indices[0], values, gradient.shape)
    parameter.grad = gradient.coalesce()
