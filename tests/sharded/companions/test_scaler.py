"""Gradient scaling: an overflow on any rank stops the step, and lowers the scale, on all."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from dist_s2s.sharded import DistributedEmbedding, GradScaler, SparseSGD, clip_grad_norm_
from tests.rank_pool import RankPool
from tests.sharded.collectives import counted_collectives
from tests.sharded.reference import TRANSPORTS, assemble, random_ids

V, D, STEPS, OVERFLOW = 131, 5, 6, 2
SETTINGS = {"init_scale": 2.0**10, "growth_interval": 2}
CLOSE = {"rtol": 0, "atol": 1e-6}  # torch clips by norm + 1e-6
Step = tuple[float, Tensor, Tensor]  # scale, all rows or a shard, dense weight


def new_dense() -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(D, 1, dtype=torch.float64)


def ids_of(rank: int, step: int) -> Tensor:
    return random_ids(V, (rank + 3,), seed=10 * step + rank)


def loss_of(rows: Tensor, dense: nn.Module, spoilt: str | None, value: float) -> Tensor:
    """spoilt: "rows" or "dense" get a gradient of that value somewhere."""
    loss = dense(rows).square().mean()
    if spoilt == "rows":
        loss = loss + value * rows[0, 0]
    if spoilt == "dense":
        loss = loss + value * next(dense.parameters()).sum()
    return loss


def new_optimizers(kind: str, weight: nn.Parameter, dense: nn.Module) -> list[Optimizer]:
    match kind:
        case "one":
            return [SGD([weight, *dense.parameters()], lr=0.5)]
        case "fused":
            return [SGD([weight], lr=0.5), SGD(dense.parameters(), lr=0.5, fused=True)]
    return [SparseSGD([weight], lr=0.5), SGD(dense.parameters(), lr=0.5)]


def step_with(scaler: Any, optimizers: list[Optimizer], clip: Callable[[], object] | None) -> None:
    if clip is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        clip()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()


def train(
    group: dist.ProcessGroup, spoilt: tuple[int, str], value: float, kind: str, clips: bool, transport: str, ours: bool
) -> list[Step]:
    table = DistributedEmbedding(V, D, process_group=group, seed=1, dtype=torch.float64, transport=transport)
    dense = DistributedDataParallel(new_dense(), process_group=group)
    optimizers, rank = new_optimizers(kind, table.weight, dense), dist.get_rank(group)
    if ours:
        scaler: torch.amp.GradScaler = GradScaler("cpu", **SETTINGS, tables=[table])
    else:
        scaler = ShardedGradScaler("cpu", **SETTINGS, process_group=group)
    history = []
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        where = spoilt[1] if step == OVERFLOW and rank == spoilt[0] else None
        scaler.scale(loss_of(table(ids_of(rank, step)), dense, where, value)).backward()
        step_with(scaler, optimizers, (lambda: clip_grad_norm_(dense, [table], 0.1)) if clips else None)
        history.append((scaler.get_scale(), table.weight.detach().clone(), dense.module.weight.detach().clone()))
    return history


def train_alone(world_size: int, spoilt: tuple[int, str], value: float, kind: str, clips: bool) -> list[Step]:
    """One process with torch's scaler and the batches of all ranks."""
    table = nn.Embedding(V, D, _weight=DistributedEmbedding(V, D, seed=1, dtype=torch.float64).weight.detach().clone())
    dense, scaler, history = new_dense(), torch.amp.GradScaler("cpu", **SETTINGS), []
    optimizers = new_optimizers(kind, table.weight, dense)
    parameters = [table.weight, *dense.parameters()]
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for rank in range(world_size):
            where = spoilt[1] if step == OVERFLOW and rank == spoilt[0] else None
            loss = loss_of(table(ids_of(rank, step)), dense, where, value)
            scaler.scale(loss / world_size).backward()
        step_with(scaler, optimizers, (lambda: nn.utils.clip_grad_norm_(parameters, 0.1)) if clips else None)
        history.append((scaler.get_scale(), table.weight.detach().clone(), dense.weight.detach().clone()))
    return history


def check(histories: list[list[Step]], expected: list[Step]) -> None:
    for *of_ranks, reference in zip(*histories, expected, strict=True):
        scales, shards, dense = zip(*of_ranks, strict=True)
        assert set(scales) == {reference[0]}
        torch.testing.assert_close(assemble(shards, "contiguous"), reference[1], **CLOSE)
        for weight in dense:
            assert torch.equal(weight, dense[0])
            torch.testing.assert_close(weight, reference[2], **CLOSE)


@pytest.mark.parametrize(
    ("world_size", "rank", "where", "value", "kind", "clips", "transport"),
    [
        (world_size, rank, where, value, kind, clips, transport)
        for (world_size, rank), where, value, (kind, clips), transport in product(
            [(2, 0), (3, 2), (4, 1)],
            ["rows", "dense"],
            [math.inf, math.nan],
            [("one", True), ("two", False)],
            TRANSPORTS,
        )
    ]
    + [(2, 1, "rows", -math.inf, "two", True, "auto"), (2, 1, "dense", math.inf, "fused", False, "auto")],
)
def test_all_ranks_do_as_one_process_with_torchs_scaler(
    ranks: RankPool, world_size: int, rank: int, where: str, value: float, kind: str, clips: bool, transport: str
):
    expected = train_alone(world_size, (rank, where), value, kind, clips)
    assert [scale for scale, *_ in expected] == [1024, 2048, 1024, 1024, 2048, 2048]  # grown, fallen, and grown again
    histories = ranks.run(train, (rank, where), value, kind, clips, transport, True, world_size=world_size)
    check(histories, expected)


@pytest.mark.parametrize("where", ["rows", "dense"])
def test_after_a_common_clipping_all_optimizers_skip_together(ranks: RankPool, where: str):
    for history in ranks.run(train, (1, where), math.nan, "two", True, "auto", True, world_size=2):
        for number in (1, 2):  # the shard and the dense weight
            kept = [torch.equal(new[number], old[number]) for old, new in pairwise(history)]
            assert kept == [step == OVERFLOW for step in range(1, STEPS)]


@pytest.mark.parametrize(("kind", "clips"), [("one", True), ("two", False)])
def test_torchs_sharded_scaler_does_so_too(ranks: RankPool, kind: str, clips: bool):
    expected = train_alone(3, (1, "rows"), math.inf, kind, clips)
    check(ranks.run(train, (1, "rows"), math.inf, kind, clips, "auto", False, world_size=3), expected)


def new_table(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, process_group=group, seed=1, **settings)


def test_on_one_rank_torchs_own_scaler_will_do():
    for scaler in (torch.amp.GradScaler("cpu"), GradScaler("cpu", tables=[table := new_table(None)])):
        table = new_table(None)
        optimizer = SGD(table.parameters(), lr=1.0)
        scaler.scale(table(torch.tensor([3])).sum()).backward()
        scaler.step(optimizer)
        assert torch.equal(table.weight, new_table(None).weight.index_add(0, torch.tensor([3]), -torch.ones(1, D)))


def step_without_gradients(group: dist.ProcessGroup, spoilt: bool) -> tuple[float, float, float]:
    """Scale, and two parameters of which only rank 0's first has a gradient."""
    table, scaler = new_table(group), GradScaler("cpu", init_scale=8.0, growth_interval=1, tables=[new_table(group)])
    first, second = (nn.Parameter(torch.zeros(())) for _ in range(2))
    optimizers = [SGD([first], lr=1.0), SGD([second, table.weight], lr=1.0)]
    scaler = GradScaler("cpu", init_scale=8.0, growth_interval=1, tables=[table])
    loss = scaler.scale(first * (math.inf if spoilt else 1.0))
    if dist.get_rank(group) == 0:
        loss.backward()
    step_with(scaler, optimizers, None)
    return scaler.get_scale(), first.item(), second.item()


@pytest.mark.parametrize(("spoilt", "expected"), [(False, [(16, -1, 0), (16, 0, 0)]), (True, [(4, 0, 0), (4, 0, 0)])])
def test_an_optimizer_without_gradients_on_some_or_all_ranks_takes_part(
    ranks: RankPool, spoilt: bool, expected: list[tuple[float, float, float]]
):
    assert ranks.run(step_without_gradients, spoilt, world_size=2) == expected


def count(group: dist.ProcessGroup, enabled: bool) -> Counter[str]:
    table, dense = new_table(group), new_dense()
    optimizers = [SGD(table.parameters(), lr=1.0), SGD(dense.parameters(), lr=1.0)]
    scaler = GradScaler("cpu", enabled=enabled, tables=[table, table])
    scaler.scale(dense(table(torch.arange(3)).double()).sum()).backward()
    with counted_collectives() as counts:
        step_with(scaler, optimizers, lambda: None)
    return counts["main"]


def test_there_is_one_exchange_for_each_optimizer_and_none_if_disabled(ranks: RankPool):
    name = "meet" if "shared_memory" in TRANSPORTS else "all_to_all_single"
    assert ranks.run(count, True, world_size=2) == [Counter({name: 2})] * 2
    assert ranks.run(count, False, world_size=2) == [Counter()] * 2


def step_on_a_mesh(_: dist.ProcessGroup, spoilt: int) -> tuple[float, bool]:
    """Scale, and whether the shard changed, on two replicas of two shards; a half-precision gradient on no rank."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    table = DistributedEmbedding(V, D, device_mesh=mesh, seed=1)
    scaler, optimizer = GradScaler("cpu", init_scale=8.0, tables=[table]), SGD(table.parameters(), lr=1.0)
    before = table.weight.detach().clone()
    scaler.scale(table(torch.arange(V)).sum()).backward()
    if dist.get_rank() == spoilt:
        table.weight.grad.values()[0, 0] = math.inf
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale(), torch.equal(table.weight, before)


@pytest.mark.parametrize("spoilt", [0, 3])
def test_replicas_learn_of_it_too(ranks: RankPool, spoilt: int):
    assert ranks.run(step_on_a_mesh, spoilt) == [(4.0, True)] * 4


def test_its_state_is_that_of_torchs():
    scaler, torchs = GradScaler("cpu", init_scale=8.0, tables=[new_table(None)]), torch.amp.GradScaler("cpu")
    torchs.load_state_dict(scaler.state_dict())
    assert torchs.get_scale() == 8.0
