"""Rows become outputs, and gradients of outputs those of rows: each is the transpose of the other."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s.sharded.rows.selection import Selection

NUM_ROWS, D = 9, 3
positions = st.lists(st.integers(0, NUM_ROWS - 1), max_size=20)


@given(positions, st.booleans())
def test_outputs_are_the_rows_of_their_positions(listed: list[int], deduplicate: bool):
    of_outputs = torch.tensor(listed, dtype=torch.int64)
    selection, whole = Selection(of_outputs, deduplicate), torch.arange(NUM_ROWS * D).view(NUM_ROWS, D)
    named = whole[selection.runs.distinct]
    assert len(named) == (len(set(listed)) if deduplicate else len(listed))
    assert torch.equal(selection.expand(named), whole[of_outputs])
    assert torch.equal(selection.read(whole), whole[of_outputs])


@given(positions, st.booleans())
def test_reduce_is_the_transpose_of_expand(listed: list[int], deduplicate: bool):
    selection = Selection(torch.tensor(listed, dtype=torch.int64)[:, None], deduplicate)
    generator = torch.Generator().manual_seed(len(listed))
    rows = torch.randint(-9, 9, (len(selection.runs.distinct), D), generator=generator).double()
    gradients = torch.randint(-9, 9, (len(listed), 1, D), generator=generator).double()
    assert selection.expand(rows).shape == gradients.shape
    assert (selection.expand(rows) * gradients).sum() == (rows * selection.reduce(gradients)).sum()


def test_a_selection_moves_with_what_it_knows():
    selection = Selection(torch.tensor([[3, 1], [3, 0]]))
    assert "runs" not in vars(selection.to(torch.device("meta")))
    assert selection.runs.distinct.tolist() == [0, 1, 3]
    moved = selection.to(torch.device("meta"))
    assert (moved.runs.distinct.device.type, moved.shape) == ("meta", (2, 2))
