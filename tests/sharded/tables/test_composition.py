"""A table is one more module: beside DistributedDataParallel, in another dtype, copied, compiled, frozen."""

import copy
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from dist_s2s.sharded import DistributedEmbedding, DistributedEmbeddingBag, lookup
from dist_s2s.sharded.tables import embedding
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS, assemble, random_ids, random_rows

V, D, H, STEPS = 131, 5, 3, 4


class Model(nn.Module):
    """A table and whatever comes after it."""

    def __init__(self, table: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.table, self.rest = table, rest

    def forward(self, ids: Tensor) -> Tensor:
        return self.rest(self.table(ids)).tanh().square().mean()


def new_table(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, process_group=group, seed=1, **{"dtype": torch.float64, **settings})


def new_rest() -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(D, H, dtype=torch.float64)


def batches(world_size: int) -> list[list[Tensor]]:
    """Ids by step and rank."""
    return [[random_ids(V, (6, 3), 10 * step + rank) for rank in range(world_size)] for step in range(STEPS)]


def train(model: nn.Module, batches: list[list[Tensor]]) -> list[float]:
    """The mean loss of each step. Gradients add up over the micro-batches."""
    optimizer, losses = SGD(model.parameters(), lr=1.0), []
    for ids in batches:
        optimizer.zero_grad()
        of_step = [model(mine) for mine in ids]
        for loss in of_step:
            (loss / len(ids)).backward()
        optimizer.step()
        losses.append(sum(loss.item() for loss in of_step) / len(ids))
    return losses


def train_beside_ddp(group: dist.ProcessGroup, batches: list[list[Tensor]]) -> tuple[Tensor, Tensor, list[float]]:
    rest = DistributedDataParallel(new_rest(), process_group=group)
    model = Model(new_table(group), rest)
    losses = train(model, [[ids[dist.get_rank(group)]] for ids in batches])
    return model.table.weight.detach(), rest.module.weight.detach(), losses


def test_beside_ddp_it_trains_as_the_unsharded_model(ranks: RankPool):
    steps = batches(3)
    reference = Model(nn.Embedding(V, D, _weight=new_table(None).weight.detach().clone()), new_rest())
    before = copy.deepcopy(reference)
    expected = train(reference, steps)
    shards, weights, losses = zip(*ranks.run(train_beside_ddp, steps, world_size=3), strict=True)
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(assemble(shards, "contiguous"), reference.table.weight.detach(), **close)
    for weight in weights:
        torch.testing.assert_close(weight, reference.rest.weight.detach(), **close)
    means = [sum(of_step) / 3 for of_step in zip(*losses, strict=True)]
    assert means == pytest.approx(expected, rel=0, abs=1e-9)
    assert (reference.table.weight - before.table.weight).abs().max() > 1e-3


def train_in_modes(group: dist.ProcessGroup, ids: list[Tensor]) -> None:
    model, mine = Model(new_table(group, transport="collective"), new_rest()), ids[dist.get_rank(group)]
    expected = model(mine)
    assert torch.equal(model.eval()(mine), expected)
    before = model.table.statistics.collectives
    with torch.no_grad():
        loss = model.train()(mine)
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    with torch.inference_mode():
        assert torch.equal(model(mine), expected)
    assert model.table.statistics.collectives == before + 4


def test_evaluation_gives_the_same_rows(ranks: RankPool):
    ranks.run(train_in_modes, batches(2)[0], world_size=2)


def change_dtype(group: dist.ProcessGroup, ids: list[list[Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Weight and gradient after two backwards, in one dtype after another."""
    table, results, rank = new_table(group, dtype=torch.float32), [], dist.get_rank(group)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert table.to(dtype) is table
        table.zero_grad()
        for batch in ids:
            rows = table(batch[rank])
            assert rows.dtype == dtype
            rows.sum().backward()
        gradient = table.weight.grad
        assert gradient.dtype == dtype
        assert gradient.is_coalesced()
        assert torch.equal(gradient.indices()[0], gradient.indices()[0].unique())
        results.append((table.weight.detach().clone(), gradient.to_dense()))
    return results


def test_it_changes_its_dtype_with_the_model(ranks: RankPool):
    ids = batches(2)[:2]
    whole = new_table(None, dtype=torch.float32).weight.detach()
    counts = torch.bincount(torch.cat([mine.flatten() for batch in ids for mine in batch]), minlength=V) / 2
    for of_ranks in zip(*ranks.run(change_dtype, ids, world_size=2), strict=True):
        weights, gradients = zip(*of_ranks, strict=True)
        weight = assemble(weights, "contiguous")
        assert torch.equal(weight, whole.to(weight.dtype))
        expected = counts[:, None].expand(-1, D).to(weight.dtype)
        assert torch.equal(assemble(gradients, "contiguous"), expected)


def copy_and_train(group: dist.ProcessGroup, steps: list[list[Tensor]]) -> list[Tensor]:
    """Shards of a model that has been trained, of its copy from before, and of the copy trained too."""
    rank, model = dist.get_rank(group), Model(new_table(group, padding_idx=0), new_rest())
    model(steps[0][rank]).backward()
    clone = copy.deepcopy(model)
    assert clone.table.group is model.table.group
    assert clone.table.weight.grad is None
    model.zero_grad()
    results = []
    for trained in (model, clone):
        results.append(clone.table.weight.detach().clone())
        train(trained, [[ids[rank] for ids in steps]])  # two backwards to a step
        assert trained.table.weight.grad.is_coalesced()
        results.append(trained.table.weight.detach().clone())
    return results


def test_a_copy_is_trained_by_itself(ranks: RankPool):
    results = zip(*ranks.run(copy_and_train, batches(2)[:2], world_size=2), strict=True)
    before, model, untouched, clone = (assemble(shards, "contiguous") for shards in results)
    assert torch.equal(before, new_table(None, padding_idx=0).weight)
    assert torch.equal(untouched, before)
    assert not torch.equal(model, before)
    assert torch.equal(clone, model)


def compile_and_train(group: dist.ProcessGroup, steps: list[list[Tensor]]) -> list[tuple[list[float], Tensor]]:
    """Losses and shard of the model as it is, compiled as a whole, and with only the rest compiled."""
    mine, results = [[ids[dist.get_rank(group)]] for ids in steps], []
    for what in ("nothing", "everything", "the rest"):
        rest, table = new_rest(), new_table(group)
        model: nn.Module = Model(table, torch.compile(rest, backend="aot_eager") if what == "the rest" else rest)
        if what == "everything":
            model = torch.compile(model, backend="aot_eager")
        results.append((train(model, mine), table.weight.detach()))
    return results


def test_compiled_models_train_as_others_do(ranks: RankPool):
    for eager, *compiled in ranks.run(compile_and_train, batches(2), world_size=2, timeout=110):
        for result in compiled:
            torch.testing.assert_close(result, eager, rtol=0, atol=1e-12)


def freeze(group: dist.ProcessGroup, ids: list[Tensor], transport: str) -> None:
    frozen, trained = (new_table(group, transport=transport) for _ in range(2))
    frozen.weight.requires_grad_(False)
    model, mine = Model(frozen, new_rest()), ids[dist.get_rank(group)]
    statistics = frozen.statistics  # of both tables
    before = statistics.collectives
    model(mine).backward()
    assert model.rest.weight.grad.any()
    assert frozen.weight.grad is None
    assert statistics.collectives == before + 2  # none in backward
    frozen_rows, rows = lookup([frozen, trained], [mine, mine])
    assert not frozen_rows.requires_grad
    alone = trained(mine)
    costs = []
    for loss in ((frozen_rows * rows).sum(), alone.sum()):
        statistics.reset()
        loss.backward()
        costs.append((statistics.collectives, statistics.bytes_sent))
    assert costs[0] == costs[1]  # the trained table's gradient and nothing else
    assert costs[0][0] == 1
    assert frozen.weight.grad is None
    assert trained.weight.grad.values().any()
    frozen.weight.requires_grad_(True)
    frozen(mine).sum().backward()
    assert frozen.weight.grad.values().any()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_frozen_table_has_no_gradient_and_no_exchange_in_backward(ranks: RankPool, transport: str):
    ranks.run(freeze, batches(3)[0], transport, world_size=3)


def test_a_large_table_is_filled_in_blocks():
    sizes, normal_rows = [], embedding.normal_rows

    def record(ids: Tensor, embedding_dim: int, seed: int) -> Tensor:
        sizes.append(len(ids))
        return normal_rows(ids, embedding_dim, seed)

    with patch.object(embedding, "normal_rows", record):
        table = DistributedEmbedding(100_000, 7, 99_999, init_std=0.5, dtype=torch.float64, seed=3)
    assert sum(sizes) == 100_000
    assert max(sizes) * 7 <= 1 << 18
    expected = normal_rows(torch.arange(100_000), 7, 3).mul(0.5).double()
    expected[-1] = 0
    assert torch.equal(table.weight, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_padded_batch_match_their_embedding_under_autocast(dtype: torch.dtype):
    table = new_table(None, dtype=torch.float32, padding_idx=0)
    whole = nn.Embedding(V, D, 0, _weight=table.weight.detach().clone())
    ids = torch.tensor([[3, 9, 0], [4, 0, 0]])
    for module in (table, whole):
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            (module(ids) @ random_rows((D, 2), seed=0).float()).sum().backward()
    torch.testing.assert_close(table.weight.grad.to_dense(), whole.weight.grad, rtol=0, atol=1e-6)


class Pooled(nn.Module):
    """A table of bags and what comes after it."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.bags = DistributedEmbeddingBag(V, D, mode="mean", process_group=group, seed=1, dtype=torch.float64)
        self.rest = new_rest()

    def forward(self, ids: Tensor) -> Tensor:
        return self.rest(self.bags(ids)).tanh().square().mean()


def compile_bags(group: dist.ProcessGroup, steps: list[list[Tensor]]) -> list[tuple[list[float], Tensor]]:
    mine, results = [[ids[dist.get_rank(group)]] for ids in steps], []
    for compiles in (False, True):
        model = Pooled(group)
        losses = train(torch.compile(model, backend="aot_eager") if compiles else model, mine)
        results.append((losses, model.bags.weight.detach()))
    with pytest.raises(RuntimeError, match="a table of bags cannot be exported; put its to_embedding_bag"):
        torch.export.export(model, (mine[0][0],))
    return results


def test_compiled_bags_train_as_others_do(ranks: RankPool):
    for eager, compiled in ranks.run(compile_bags, batches(2), world_size=2, timeout=110):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-12)
