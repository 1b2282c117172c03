"""What is wrong with a mesh, or with the ids in one replica, is an error on every rank."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from dist_s2s.sharded import DistributedEmbedding, Lookahead
from tests.rank_pool import RankPool
from tests.sharded.tables.test_hybrid import GRIDS, D, V, mesh_of, new_table


def build_differently(group: dist.ProcessGroup, grid: list[list[int]]) -> list[str]:
    messages = []
    differing = {"grad_reduction": "sum" if dist.get_rank() >= 2 else "mean"}
    for settings in (differing, {"process_group": group}, {"max_norm": 1.0}):
        with pytest.raises(ValueError, match=r"same|both|replicas") as error:
            new_table(mesh_of(grid), **settings)
        messages.append(str(error.value))
    with pytest.raises(ValueError, match="dimensions") as error:
        DistributedEmbedding(V, D, device_mesh=DeviceMesh("cpu", [0, 1, 2, 3]))
    return [*messages, str(error.value)]


def test_wrong_meshes_are_refused(ranks: RankPool):
    expected = [
        "grad_reduction must be the same on every rank, but is mean on rank 0 and sum on rank 1",
        "give process_group or device_mesh, but not both",
        "max_norm changes rows in a lookup, which other replicas do not see; leave out one",
        "device_mesh must have 2 dimensions, replicas and shards, but has 1",
    ]
    assert ranks.run(build_differently, GRIDS[0]) == [expected] * 4


def look_up_a_bad_id(group: dist.ProcessGroup, ahead: bool) -> str:
    """The error on each rank of a step in which one rank has a bad id; and then a good step."""
    rank = dist.get_rank()
    mesh = mesh_of(GRIDS[0])
    table = new_table(mesh)
    plan_group = dist.new_group([0, 1]), dist.new_group([2, 3])
    ids = torch.tensor([V if rank == 2 else 3])

    def step() -> None:
        if ahead:
            [(_, [rows])] = Lookahead([table], [ids], lambda ids: [ids], plan_group[rank // 2])
        else:
            rows = table(ids)
        rows.sum().backward()

    with pytest.raises(IndexError) as error:
        step()
    table(torch.tensor([rank])).sum().backward()
    return str(error.value)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_bad_id_in_one_replica_is_an_error_in_all(ranks: RankPool, ahead: bool):
    assert ranks.run(look_up_a_bad_id, ahead) == [f"id {V} at position (0,) on rank 0 is outside [0, {V})"] * 4


def train_with_equal_shards(group: dist.ProcessGroup) -> str:
    """The error on each rank, if a broadcast has made the shards of one replica equal."""
    mesh = mesh_of(GRIDS[0])
    table = new_table(mesh)
    if mesh.get_local_rank(0) == 0:
        shards = mesh.get_group(1)
        dist.broadcast(table.weight.data[: V // 2], dist.get_global_rank(shards, 0), group=shards)
    with pytest.raises(RuntimeError) as error:
        table(torch.tensor([3])).sum().backward()
    return str(error.value)


def test_equal_shards_in_one_replica_are_an_error_in_all(ranks: RankPool):
    [text] = set(ranks.run(train_with_equal_shards, timeout=20))
    assert "on ranks 0 and 1 hold the same numbers" in text
