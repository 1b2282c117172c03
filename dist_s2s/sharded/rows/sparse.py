"""Sparse tensors of rows, built without a check of their indices, which torch would make in every backward."""

import torch
from torch import Tensor

# torch 2.11 and 2.12 warn of every call of the constructor, whatever check_invariants says (pytorch#178274). The
# operator beneath it is silent there, but private, and 20 µs slower.
_CONSTRUCTOR_WARNS = torch.__version__.startswith(("2.11.", "2.12."))


def coalesced_rows(rows: Tensor, values: Tensor, size: torch.Size) -> Tensor:
    """Return a coalesced sparse tensor of ``size`` with ``values`` in some of its rows.

    Args:
        rows: ascending, no row twice, int64 [n]. Not checked.
        values: [n, D].
        size: [number of rows, D].
    """
    if not _CONSTRUCTOR_WARNS:
        return torch.sparse_coo_tensor(rows[None], values, size, is_coalesced=True, check_invariants=False)
    build = torch.ops.aten._sparse_coo_tensor_with_dims_and_tensors
    options = {"dtype": values.dtype, "layout": torch.sparse_coo, "device": values.device}
    made: Tensor = build(1, 1, size, rows[None], values, is_coalesced=True, **options)
    return made
