"""Every row has one owner and one position, whatever the sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s.sharded import RowPartition
from tests.sharded.reference import LAYOUTS, assemble

partitions = st.builds(RowPartition, st.integers(0, 200), st.integers(1, 9), st.sampled_from(LAYOUTS))


@given(partitions)
def test_every_row_has_exactly_one_owner(partition: RowPartition):
    owned = torch.cat([partition.ids(owner) for owner in range(partition.num_shards)])
    assert owned.dtype == torch.int64
    assert sorted(owned.tolist()) == list(range(partition.num_rows))


@given(partitions)
def test_sizes_differ_by_at_most_one_and_the_first_owners_have_the_extra_row(partition: RowPartition):
    sizes = [partition.shard_size(owner) for owner in range(partition.num_shards)]
    rows, extra = divmod(partition.num_rows, partition.num_shards)
    assert sizes == [rows + 1] * extra + [rows] * (partition.num_shards - extra)


@given(partitions)
def test_offsets_are_the_running_sum_of_the_sizes(partition: RowPartition):
    sizes = [len(partition.ids(owner)) for owner in range(partition.num_shards)]
    offsets = [partition.offset(owner) for owner in range(partition.num_shards + 1)]
    assert offsets == [sum(sizes[:owner]) for owner in range(partition.num_shards + 1)]


@given(partitions)
def test_positions_owner_and_row_and_ids_agree(partition: RowPartition):
    positions = partition.positions(torch.arange(partition.num_rows))
    for owner in range(partition.num_shards):
        for row, row_id in enumerate(partition.ids(owner).tolist()):
            assert partition.owner_and_row(row_id) == (owner, row)
            assert positions[row_id] == partition.offset(owner) + row
    assert torch.equal(partition.ids_at(positions), torch.arange(partition.num_rows))


@given(partitions)
def test_a_partition_is_known_by_its_numbers(partition: RowPartition):
    assert RowPartition.of_numbers(*partition.numbers) == partition


@given(partitions, st.data())
def test_a_slice_of_ids_is_that_slice_of_all_ids(partition: RowPartition, data: st.DataObject):
    owner = data.draw(st.integers(0, partition.num_shards - 1))
    stop = data.draw(st.integers(0, partition.shard_size(owner)))
    start = data.draw(st.integers(0, stop))
    assert partition.ids(owner, start, stop).tolist() == partition.ids(owner).tolist()[start:stop]


@given(partitions, st.data())
def test_ids_of_rows_are_ids_indexed_by_rows_of_any_shape(partition: RowPartition, data: st.DataObject):
    owner = data.draw(st.sampled_from([o for o in range(partition.num_shards) if partition.shard_size(o)] or [0]))
    last = partition.shard_size(owner) - 1
    numbers = data.draw(st.lists(st.integers(0, last), max_size=9)) if last >= 0 else []
    rows = torch.tensor(numbers, dtype=torch.int64)[:, None]
    assert torch.equal(partition.ids_of_rows(owner, rows), partition.ids(owner)[rows])


@given(partitions, st.integers(0, 250))
def test_rows_below_counts_the_first_rows_of_a_shard(partition: RowPartition, bound: int):
    for owner in range(partition.num_shards):
        is_below = partition.ids(owner) < bound
        below = partition.rows_below(owner, bound)
        assert below == is_below.sum()
        assert is_below[:below].all()


@given(partitions)
def test_layouts_mean_what_their_names_say(partition: RowPartition):
    shards = [partition.ids(owner) for owner in range(partition.num_shards)]
    assert assemble(shards, partition.layout).tolist() == list(range(partition.num_rows))


def test_positions_keep_the_shape():
    partition = RowPartition(131, 4, "round_robin")
    ids = torch.arange(6).reshape(2, 3)
    assert partition.positions(ids).tolist() == [[0, 33, 66], [99, 1, 34]]


def test_the_position_of_a_single_id_leaves_the_partition_as_it_was():
    partition = RowPartition(131, 4, "round_robin")
    for _ in range(2):
        assert [partition.positions(torch.tensor(row)).item() for row in (6, 9, 130)] == [67, 35, 98]
    assert partition.offsets.tolist() == [0, 33, 66, 99]


def test_fewer_rows_than_shards_leave_the_last_owners_empty():
    for layout in LAYOUTS:
        partition = RowPartition(2, 4, layout)
        assert [partition.ids(owner).tolist() for owner in range(4)] == [[0], [1], [], []]


@pytest.mark.parametrize("row_id", [-1, 131])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_outside_the_table_has_no_owner(layout: str, row_id: int):
    with pytest.raises(IndexError, match=rf"^row {row_id} is outside \[0, 131\)$"):
        RowPartition(131, 4, layout).owner_and_row(row_id)


def test_impossible_partitions_are_refused():
    with pytest.raises(ValueError, match=r"^num_rows must not be negative, but is -1$"):
        RowPartition(-1, 2)
    with pytest.raises(ValueError, match=r"^num_shards must be at least 1, but is 0$"):
        RowPartition(131, 0)
    with pytest.raises(ValueError, match=r"^layout must be one of contiguous, round_robin, but is 'striped'$"):
        RowPartition(131, 2, "striped")
