"""Sparse tensors of rows, by either way of building them."""

import pytest
import torch

from dist_s2s.sharded.rows import sparse


@pytest.mark.parametrize("constructor_warns", [False, True])
@pytest.mark.parametrize(("rows", "dtype"), [([1, 4], torch.float64), ([0], torch.bfloat16), ([], torch.float32)])
def test_rows_become_a_coalesced_tensor(
    rows: list[int], dtype: torch.dtype, constructor_warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "_CONSTRUCTOR_WARNS", constructor_warns)
    values = torch.randn(len(rows), 3, dtype=dtype)
    torch.set_warn_always(True)  # not just the first time; warnings are errors
    try:
        found = sparse.coalesced_rows(torch.tensor(rows, dtype=torch.int64), values, torch.Size((5, 3)))
    finally:
        torch.set_warn_always(False)
    assert found.is_coalesced()
    assert (found.dtype, found.shape) == (dtype, (5, 3))
    expected = torch.zeros(5, 3, dtype=dtype)
    expected[rows] = values
    assert torch.equal(found.to_dense(), expected)
