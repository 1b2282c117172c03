"""Tables in other people's programs, on the device of `pytest --device`: as on the CPU, which the other tests check.

Two ranks share the one device, joined by gloo, which nccl refuses to do; what needs no other rank goes through nccl.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from dist_s2s.sharded import (
    CheckpointState,
    DistributedEmbedding,
    DistributedEmbeddingBag,
    GradScaler,
    SparseAdam,
    SparseSGD,
    clip_grad_norm_,
    exclude_sharded,
    gather_state,
    load_state,
    uneven,
)
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.reference import LAYOUTS, assemble, random_ids, random_rows

V, D, STEPS, OVERFLOW = 131, 6, 5, 2
SETTINGS: dict[str, Any] = {"init_scale": 2.0**10, "growth_interval": 2}
close: Callable[..., None] = torch.testing.assert_close


class Model(nn.Module):
    """A table and a layer."""

    def __init__(self, device: torch.device, table: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.rest = table, nn.Linear(D, 3).to(device)

    def forward(self, ids: Tensor) -> Tensor:
        return self.rest(self.table(ids)).tanh().square().mean()


def table_on(device: torch.device, group: dist.ProcessGroup | None = None, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, device=device, process_group=group, **{"seed": 1, **settings})


def batch(step: int, rank: int) -> Tensor:
    return random_ids(V, (rank + 3, 2), 10 * step + rank)


def train(model: Model, forward: nn.Module, ranks: range) -> list[Tensor]:
    """Train with an overflow in a row of rank 1; return scales, the rows at hand and the layer."""
    device = model.table.weight.device
    optimizers = [SparseSGD([model.table.weight], lr=0.5), SGD(model.rest.parameters(), lr=0.5)]
    scaler, scales = GradScaler(device.type, **SETTINGS, tables=[model.table]), []
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for rank in ranks:
            scaler.scale(forward(batch(step, rank).to(device)) / len(ranks)).backward()
        if step == OVERFLOW and 1 in ranks:
            model.table.weight.grad.values()[0, 0] = float("inf")
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.rest, [model.table], 0.1)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return [torch.tensor(scales), model.table.weight.detach().cpu(), model.rest.weight.detach().cpu()]


def train_within_ddp(group: dist.ProcessGroup, device: torch.device) -> list[Tensor]:
    model, rank = Model(device, table_on(device, group)), dist.get_rank(group)
    exclude_sharded(model)
    return train(model, DistributedDataParallel(model, process_group=group), range(rank, rank + 1))


def test_ddp_around_a_model_with_scaled_gradients(ranks: RankPool, device: torch.device):
    model = Model(torch.device("cpu"), table_on(torch.device("cpu")))
    scales, rows, weight = train(model, model, range(2))
    results = ranks.run(train_within_ddp, device, world_size=2)
    assert len(set(scales.tolist())) > 1
    for its_scales, _, its_weight in results:
        assert torch.equal(its_scales, scales)
        assert torch.equal(its_weight, results[0][2])
        close(its_weight, weight, rtol=0, atol=1e-5)
    close(assemble([shard for _, shard, _ in results], "contiguous"), rows, rtol=0, atol=1e-5)


def broadcast_a_shard(group: dist.ProcessGroup, device: torch.device) -> list[str]:
    """What lookups say of equal shards: of a table of 8 rows, and of the larger one."""
    texts = []
    for num_rows in (8, V):
        table = DistributedEmbedding(num_rows, D, device=device, process_group=group, seed=1)
        table(torch.arange(num_rows, device=device))
        dist.broadcast(table.weight.data[: num_rows // 2], 0, group=group)
        with pytest.raises(RuntimeError) as caught:
            table(torch.arange(num_rows, device=device))
        texts.append(str(caught.value))
    return texts


def test_shards_that_were_broadcast_are_found(ranks: RankPool, device: torch.device):
    first, second = ranks.run(broadcast_a_shard, device, world_size=2)
    assert first == second
    assert all("hold the same numbers" in text and "exclude_sharded(model) before" in text for text in first)


def pool(group: dist.ProcessGroup, device: torch.device, mode: str) -> tuple[Tensor, Tensor]:
    bag = DistributedEmbeddingBag(V, D, mode=mode, device=device, process_group=group, seed=1, grad_reduction="sum")
    pooled = bag(random_ids(V, (7, 4), dist.get_rank(group)).to(device))
    (pooled * random_rows((7, D), 3).to(pooled)).sum().backward()
    return pooled.detach().cpu(), bag.weight.grad.to_dense().cpu()


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_pooled_lookups(ranks: RankPool, device: torch.device, mode: str):
    whole = table_on(torch.device("cpu")).weight.detach().clone()
    reference = nn.EmbeddingBag(V, D, mode=mode, _weight=whole)
    results = ranks.run(pool, device, mode, world_size=2)
    for rank, (pooled, _) in enumerate(results):
        expected = reference(random_ids(V, (7, 4), rank))
        (expected * random_rows((7, D), 3).to(expected)).sum().backward()
        close(pooled, expected.detach(), rtol=0, atol=1e-5)
    close(torch.cat([gradient for _, gradient in results]), reference.weight.grad, rtol=0, atol=1e-5)


def save_and_load(group: dist.ProcessGroup, device: torch.device, layout: str, folder: str) -> None:
    """Through torch.distributed.checkpoint, and whole: a trained model comes back in one of other numbers."""

    def new(seed: int) -> tuple[Model, list[Any]]:
        model = Model(device, table_on(device, group, seed=seed, layout=layout))
        return model, [SparseAdam([model.table.weight]), torch.optim.AdamW(model.rest.parameters())]

    model, optimizers = new(1)
    for step in range(2):
        model(batch(step, dist.get_rank(group)).to(device)).backward()
        for optimizer in optimizers:
            optimizer.step()
    saved = {"training": CheckpointState(model, optimizers)}
    dcp.save(saved, checkpoint_id=folder, process_group=group)
    state = gather_state(model, optimizers)
    for way in ("checkpoint", "state"):
        other, others = new(2)
        if way == "state":
            load_state(other, state, others)
        else:
            loaded = {"training": CheckpointState(other, others)}
            dcp.load(loaded, checkpoint_id=folder, process_group=group)
        assert torch.equal(other.table.weight, model.table.weight)
        mine, its = optimizers[0].state[model.table.weight], others[0].state[other.table.weight]
        assert mine.keys() == its.keys()
        for name, value in mine.items():
            if isinstance(value, Tensor) and value.dim():
                assert its[name].device == model.table.weight.device
                assert torch.equal(its[name], value)
        other(batch(2, dist.get_rank(group)).to(device)).backward()
        others[0].step()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_and_loaded(ranks: RankPool, device: torch.device, layout: str):
    with tempfile.TemporaryDirectory() as folder:
        ranks.run(save_and_load, device, layout, folder, world_size=2)


def go_on_with_empty_batches(group: dist.ProcessGroup, device: torch.device) -> tuple[int, Tensor]:
    rank, table = dist.get_rank(group), table_on(device, group, grad_reduction="sum")
    batches = [batch(step, rank).to(device) for step in range(3 - 2 * rank)]
    steps = 0
    for ids in uneven(batches, process_group=second_group(2)):
        assert ids.device.type == device.type
        table(ids).sum().backward()
        steps += 1
    return steps, table.weight.grad.to_dense().cpu()


def test_uneven_loaders(ranks: RankPool, device: torch.device):
    results = ranks.run(go_on_with_empty_batches, device, world_size=2)
    assert [steps for steps, _ in results] == [3, 3]
    ids = torch.cat([batch(step, rank).flatten() for rank in range(2) for step in range(3 - 2 * rank)])
    counts = torch.bincount(ids, minlength=V)[:, None].expand(-1, D)
    assert torch.equal(torch.cat([gradient for _, gradient in results]), counts.float())


def test_accelerate_in_half_precision(device: torch.device):
    """The recipe of docs/companions.md, on one rank."""
    if device.type == "cpu":
        pytest.skip("accelerate has no gradient scaler on the CPU")
    accelerator = Accelerator(mixed_precision="fp16")
    model = Model(accelerator.device, table_on(accelerator.device))
    accelerator.scaler = GradScaler("cuda", **SETTINGS, tables=[model.table])
    exclude_sharded(model)
    rows = SparseSGD([model.table.weight], lr=0.5)
    wrapped, optimizer = accelerator.prepare(model, SGD(model.rest.parameters(), lr=0.5))
    before, scales = [model.table.weight.detach().clone(), model.rest.weight.detach().clone()], []
    for step in range(STEPS):
        rows.zero_grad()
        optimizer.zero_grad()
        accelerator.backward(wrapped(batch(step, 0).to(accelerator.device)))
        if step == OVERFLOW:
            model.table.weight.grad.values()[0, 0] = float("inf")
        accelerator.scaler.step(rows)
        optimizer.step()
        scales.append(accelerator.scaler.get_scale())
    assert scales == [2.0**10, 2.0**11, 2.0**10, 2.0**10, 2.0**11]
    for old, weight in zip(before, (model.table.weight, model.rest.weight), strict=True):
        assert torch.isfinite(weight).all()
        assert not torch.equal(old, weight)
