"""A table sharded over the rows of a device mesh and replicated down its columns learns as one unsharded table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer, SparseAdam

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad
from dist_s2s.sharded.transport.shared_memory.mailboxes import Mailboxes
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids, random_rows

V, D, STEPS = 131, 5, 5
GRIDS = [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0], [1], [2], [3]], [[0, 1, 2, 3]]]  # rows are replicas
OPTIMIZERS: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "RowWiseAdagrad": partial(RowWiseAdagrad, lr=0.3, eps=0.1),
    "SparseAdam": partial(SparseAdam, lr=0.1),
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("RowWiseAdagrad", {"layout": "contiguous", "padding_idx": 3}),
    ("RowWiseAdagrad", {"layout": "round_robin", "grad_reduction": "sum"}),
    ("RowWiseAdagrad", {"layout": "round_robin", "scale_grad_by_freq": True}),
    ("SparseAdam", {"layout": "contiguous"}),
]


def mesh_of(grid: list[list[int]]) -> DeviceMesh:
    return DeviceMesh("cpu", grid, mesh_dim_names=("replicate", "shard"))


def new_table(mesh: DeviceMesh, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, device_mesh=mesh, **{"dtype": torch.float64, **settings})


def batches() -> list[list[Tensor]]:
    """Ids by step and rank: rank 3 has none in step 1, one replica of the first grid in step 2, nobody in step 3."""
    steps = [[random_ids(V - 30, (4 + rank, 3), 10 * step + rank) for rank in range(4)] for step in range(STEPS)]
    empty = torch.empty(0, 3).long()
    steps[1][3] = empty
    steps[2][:2] = [empty, empty]
    steps[3] = [empty] * 4
    return steps


def loss_of(rows: Tensor) -> Tensor:
    return (rows * random_rows(tuple(rows.shape), seed=0) + rows.square()).sum()


def train(
    group: dist.ProcessGroup, grid: list[list[int]], cases: list[tuple[str, dict[str, Any]]], steps: list[list[Tensor]]
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """For each case the shards, before the first step and after each one, and the rows that were looked up."""
    mesh, results = mesh_of(grid), []
    for name, settings in cases:
        torch.manual_seed(dist.get_rank())  # the ranks are to agree on a seed nevertheless
        table = new_table(mesh, **settings)
        replicas = table.group.replicas
        assert (replicas.size, table.world_size) == (len(grid), len(grid[0]))
        assert grid[replicas.rank][table.rank] == dist.get_rank()
        optimizer = OPTIMIZERS[name]([table.weight])
        shards, outputs = [table.weight.detach().clone()], []
        for ids in steps:
            optimizer.zero_grad()
            outputs.append(table(ids[dist.get_rank()]))
            loss_of(outputs[-1]).backward()
            assert table.weight.grad.is_coalesced()
            optimizer.step()
            shards.append(table.weight.detach().clone())
        results.append((shards, [rows.detach() for rows in outputs]))
    return results


def train_unsharded(
    name: str, settings: dict[str, Any], weight: Tensor, steps: list[list[Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """The whole table after each step on the batches of all ranks, and the rows of all of them."""
    settings = dict(settings)
    settings.pop("layout")
    scale = 1 if settings.pop("grad_reduction", "mean") == "sum" else 4
    sparse = not settings.get("scale_grad_by_freq")  # torch has no sparse gradients with it
    table = nn.Embedding(V, D, sparse=sparse, _weight=weight.clone(), **settings)
    optimizer = OPTIMIZERS[name]([table.weight])
    weights, outputs = [], []
    for ids in steps:
        optimizer.zero_grad()
        rows = table(torch.cat(ids))
        outputs.append(rows.detach())
        (sum(loss_of(mine) for mine in rows.split([len(mine) for mine in ids])) / scale).backward()
        table.weight.grad = table.weight.grad if sparse else table.weight.grad.to_sparse(1)
        with torch.sparse.check_sparse_tensor_invariants():  # torch warns unless told to check or not
            optimizer.step()
        weights.append(table.weight.detach().clone())
    return weights, outputs


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_training_equals_the_unsharded_table_and_replicas_are_equal(ranks: RankPool, grid: list[list[int]]):
    steps = batches()
    results = ranks.run(train, grid, CASES, steps)
    for number, (name, settings) in enumerate(CASES):
        shards, outputs = zip(*(of_rank[number] for of_rank in results), strict=True)
        replicas = [
            [assemble([shards[rank][step] for rank in row], settings["layout"]) for step in range(STEPS + 1)]
            for row in grid
        ]
        for replica in replicas:
            for step in range(STEPS + 1):
                same = replica[step].view(torch.int64) == replicas[0][step].view(torch.int64)
                assert same.all(), (name, settings, step)
        weights, expected_outputs = train_unsharded(name, settings, replicas[0][0], steps)
        assert (weights[-1] - replicas[0][0]).abs().max() > 0.1
        for step in range(STEPS):
            rows = torch.cat([of_rank[step] for of_rank in outputs])
            torch.testing.assert_close(rows, expected_outputs[step], rtol=0, atol=1e-9)
            torch.testing.assert_close(replicas[0][step + 1], weights[step], rtol=0, atol=1e-9)


def rounded_gradient(group: dist.ProcessGroup, ids: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    table = new_table(mesh_of(GRIDS[0]), comm_dtype=torch.bfloat16, dtype=torch.float32, grad_reduction="sum", seed=1)
    rows = table(ids[dist.get_rank()])
    rows.backward(torch.full_like(rows, 1 + 2**-8) + 2**-10)
    return table.weight.detach(), rows.detach(), table.weight.grad.to_dense()


def test_reduced_precision_is_of_the_exchange_alone(ranks: RankPool):
    ids = [random_ids(V, (20 * rank,), seed=rank).unique() for rank in range(4)]
    weights, rows, gradients = zip(*ranks.run(rounded_gradient, ids), strict=True)
    whole = assemble(weights[:2], "contiguous")
    for mine, got in zip(ids, rows, strict=True):
        assert torch.equal(got, whole[mine].bfloat16().float())
    # Each rank's gradient is rounded up to 1 + 2**-7 on its way to the owner; sums over ranks and replicas are exact.
    counts = torch.bincount(torch.cat(ids), minlength=V).float()
    for replica in (gradients[:2], gradients[2:]):
        assert torch.equal(assemble(replica, "contiguous"), (counts * (1 + 2**-7))[:, None].expand(-1, D))


@contextmanager
def recorded_groups() -> Iterator[set[tuple[str, tuple[int, ...]]]]:
    """The collectives, each with the ranks that take part in it; of a meeting (rank, world size)."""
    calls: set[tuple[str, tuple[int, ...]]] = set()
    all_to_all_single, meet = dist.all_to_all_single, Mailboxes.meet

    def record(*args: Any, group: dist.ProcessGroup, **kwargs: Any) -> Any:
        calls.add(("all_to_all_single", tuple(dist.get_process_group_ranks(group))))
        return all_to_all_single(*args, group=group, **kwargs)

    def record_meeting(mailboxes: Mailboxes, *args: Any) -> Any:
        calls.add(("meet", (mailboxes.rank, mailboxes.size)))
        return meet(mailboxes, *args)

    with patch.object(dist, "all_to_all_single", record), patch.object(Mailboxes, "meet", record_meeting):
        yield calls


def record_lookup(group: dist.ProcessGroup, transport: str) -> tuple[set[Any], set[Any]]:
    table = new_table(mesh_of(GRIDS[0]), transport=transport)
    with recorded_groups() as forward:
        rows = table(torch.tensor([dist.get_rank()]))
    with recorded_groups() as backward:
        rows.sum().backward()
    return forward, backward


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_lookups_stay_within_a_replica(ranks: RankPool, transport: str):
    for rank, (forward, backward) in enumerate(ranks.run(record_lookup, transport)):
        replica, column = ((0, 1) if rank < 2 else (2, 3)), (rank % 2, rank % 2 + 2)
        within = ("all_to_all_single", replica) if transport == "collective" else ("meet", (rank % 2, 2))
        assert forward == {within}
        assert backward == {within, ("all_to_all_single", column)}


def convert(group: dist.ProcessGroup, grid: list[list[int]], whole: Tensor) -> tuple[Tensor, Tensor]:
    """The shard, and the whole table gathered again; only rank 0 knows the rows."""
    embeddings = whole if dist.get_rank() == 0 else whole.to("meta")
    table = DistributedEmbedding.from_pretrained(embeddings, device_mesh=mesh_of(grid), layout="round_robin")
    return table.weight.detach(), table.to_embedding().weight.detach()


@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[2]], ids=str)
def test_all_replicas_begin_with_the_rows_of_rank_0(ranks: RankPool, grid: list[list[int]]):
    whole = random_rows((V, D), seed=0)
    results = ranks.run(convert, grid, whole)
    for row in grid:
        assert torch.equal(assemble([results[rank][0] for rank in row], "round_robin"), whole)
    assert all(torch.equal(gathered, whole) for _, gathered in results)


def change_rows(group: dist.ProcessGroup, grid: list[list[int]], layout: str) -> tuple[Tensor, Tensor, list[str]]:
    """The shard when each rank has reset a row of its own, that after growing, and the errors of wrong calls."""
    table, rank, messages = new_table(mesh_of(grid), layout=layout, seed=1), dist.get_rank(), []
    nn.init.ones_(table.weight)
    table.reset_rows(torch.tensor([], dtype=torch.long) if rank == 1 else torch.tensor([rank, 100 + rank]))
    reset = table.weight.detach().clone()
    table.grow(V + 9)
    for size in (V + 9 + rank // 2, V):
        with pytest.raises(ValueError, match=r"same|shrink") as error:
            table.grow(size)
        messages.append(str(error.value))
    with pytest.raises(IndexError) as error:
        table.reset_rows(torch.tensor([140 if rank == 0 else 0]))
    return reset, table.weight.detach(), [*messages, str(error.value)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[2]], ids=str)
def test_replicas_reset_and_grow_alike(ranks: RankPool, grid: list[list[int]], layout: str):
    fresh = DistributedEmbedding(V + 9, D, dtype=torch.float64, seed=1).weight.detach()
    reset, grown, messages = zip(*ranks.run(change_rows, grid, layout), strict=True)
    expected = torch.ones(V, D).double()
    for row_id in (0, 2, 3, 100, 102, 103):
        expected[row_id] = fresh[row_id]
    for row in grid:
        assert torch.equal(assemble([reset[rank] for rank in row], layout), expected)
        whole = assemble([grown[rank] for rank in row], layout)
        assert torch.equal(whole, torch.cat((expected, fresh[V:])))
    other = 1 if len(grid) == 2 else 2
    for differing, shrinking, outside in messages:
        assert (
            differing == f"num_embeddings must be the same on every rank, but is 140 on rank 0 and 141 on rank {other}"
        )
        assert shrinking == "a table cannot shrink: it has 140 rows, and was to get 131"
        assert outside == "id 140 at position (0,) on rank 0 is outside [0, 140)"
