"""Rows that travel in bfloat16 or float16, and tables in bfloat16: sums are made in float32 all the same."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding, lookup
from dist_s2s.sharded.tables.store import RowStore
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS, assemble, random_ids

V, D = 131, 5
WIDTH = 8  # of rows that are not padded in a mailbox, in whichever dtype
IDS = [random_ids(V, shape, seed=7) for shape in ((4, 9), (0,), (40,))]  # by rank


def build(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, process_group=group, seed=0, grad_reduction="sum", **settings)


def gradient(table: DistributedEmbedding) -> Tensor:
    assert table.weight.grad is not None
    return table.weight.grad.to_dense()


def look_up(group: dist.ProcessGroup, settings: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Shard, rows and gradient."""
    table = build(group, **settings)
    rows = table(IDS[dist.get_rank(group)])
    rows.float().sin().sum().backward()
    return table.weight.detach(), rows.detach(), gradient(table)


@pytest.mark.parametrize("comm_dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_and_gradients_travel_in_reduced_precision(ranks: RankPool, dtype: torch.dtype, comm_dtype: torch.dtype):
    results = ranks.run(look_up, {"dtype": dtype, "comm_dtype": comm_dtype}, world_size=3)
    shards, rows, gradients = zip(*results, strict=True)
    whole = assemble(shards, "contiguous")
    total = torch.zeros(V, D)
    for ids, block in zip(IDS, rows, strict=True):
        assert block.dtype == dtype
        assert torch.equal(block, whole[ids].to(comm_dtype).to(dtype))
        of_each_use = block.float().cos().to(dtype).float().flatten(0, -2)
        total += torch.zeros(V, D).index_add(0, ids.flatten(), of_each_use).to(comm_dtype)
    assert gradients[0].dtype == dtype
    torch.testing.assert_close(assemble(gradients, "contiguous"), total.to(dtype), rtol=2**-7, atol=1e-6)


def test_by_default_nothing_is_rounded(ranks: RankPool):
    shards, rows, gradients = zip(*ranks.run(look_up, {"dtype": torch.float64}, world_size=3), strict=True)
    whole = assemble(shards, "contiguous").requires_grad_()
    for ids, block in zip(IDS, rows, strict=True):
        assert torch.equal(block, whole[ids])
        whole[ids].float().sin().sum().backward()
    assert whole.grad is not None
    torch.testing.assert_close(assemble(gradients, "contiguous"), whole.grad, rtol=0, atol=1e-9)


def bytes_sent(group: dist.ProcessGroup, transport: str, in_place: bool, comm_dtype: torch.dtype | None) -> int:
    """What this rank sends in a lookup and its backward."""
    table = DistributedEmbedding(V, WIDTH, process_group=group, transport=transport, comm_dtype=comm_dtype)
    if not in_place:
        table._store = RowStore(table.group, table.weight.detach())
    assert table.is_in_place is in_place
    table.statistics.reset()
    table(IDS[dist.get_rank(group)]).sum().backward()
    return table.statistics.bytes_sent


@pytest.mark.parametrize(
    ("transport", "in_place"), [(name, False) for name in TRANSPORTS] + [(name, True) for name in TRANSPORTS[1:]]
)
def test_reduced_rows_take_half_the_bytes(ranks: RankPool, transport: str, in_place: bool):
    full, reduced = (
        ranks.run(bytes_sent, transport, in_place, comm_dtype, world_size=3) for comm_dtype in (None, torch.bfloat16)
    )
    journeys = 1 if in_place else 2  # of gradients alone: rows that are read in place do not travel
    bytes_of_rows = journeys * 4 * WIDTH * sum(len(ids.unique()) for ids in IDS)
    assert sum(full) - sum(reduced) == bytes_of_rows // 2  # first messages and requests are as large as before


def sum_many(group: dist.ProcessGroup, dtype: torch.dtype) -> Tensor:
    """The gradient of a row that rank 0 asks for 512 times and every other rank once, each with a gradient of 1."""
    table = build(group, dtype=dtype, comm_dtype=torch.bfloat16)
    ids = torch.full((1 if dist.get_rank(group) else 512,), V - 1)
    table(ids).sum().backward()
    return gradient(table)


def test_sums_are_made_in_float32(ranks: RankPool):
    # In bfloat16 counting by ones ends at 256, and 512 + 1 is 512.
    assert ranks.run(sum_many, torch.float32)[-1][-1].tolist() == [515] * D
    assert ranks.run(sum_many, torch.bfloat16)[-1][-1].tolist() == [516] * D  # 515, rounded once


def look_up_in_two_dtypes(group: dist.ProcessGroup) -> list[bool]:
    """Whether tables in bfloat16 and float32 that both travel in bfloat16 get the same together as alone."""
    ids, same = IDS[dist.get_rank(group)], []
    tables = [build(group, dtype=torch.bfloat16), build(group, comm_dtype=torch.bfloat16)]
    for order in (tables, tables[::-1]):
        together, apart = lookup(order, [ids, ids]), [table(ids) for table in order]
        same += [torch.equal(mine, alone) for mine, alone in zip(together, apart, strict=True)]
        gradients = []
        for rows in (together, apart):
            (rows[0].sum() + rows[1].float().sin().sum()).backward()
            gradients.append([gradient(table) for table in order])
            for table in order:
                table.weight.grad = None
        same += [torch.allclose(mine, alone, rtol=2**-6) for mine, alone in zip(*gradients, strict=True)]
    return same


def test_tables_of_two_dtypes_may_travel_in_one(ranks: RankPool):
    assert ranks.run(look_up_in_two_dtypes, world_size=3) == [[True] * 8] * 3
