"""What programs do around a table: accelerate, averaged models, loaders with workers, threads."""

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from dist_s2s.sharded import DistributedEmbedding, SparseSGD, exclude_sharded
from tests.mortal_ranks import mortal_ranks
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS, assemble, random_ids

V, D, STEPS = 131, 5, 4


class Model(nn.Module):
    """A table and a layer."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table
        torch.manual_seed(2)
        self.rest = nn.Linear(D, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.rest(self.table(ids)).tanh().square().mean()


def new_model(group: dist.ProcessGroup | None, transport: str = "auto") -> Model:
    return Model(DistributedEmbedding(V, D, process_group=group, seed=1, transport=transport))


def batches(world_size: int) -> list[list[Tensor]]:
    """Ids by step and rank."""
    return [[random_ids(V, (6, 3), 10 * step + rank) for rank in range(world_size)] for step in range(STEPS)]


def new_accelerator(**settings: Any) -> Accelerator:
    """An accelerator that wraps models in DDP, since torchrun seems to have started these ranks."""
    ranks = {"RANK": dist.get_rank(), "LOCAL_RANK": dist.get_rank(), "WORLD_SIZE": dist.get_world_size()}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"})  # not used: the group is there already
    return Accelerator(cpu=True, **settings)


def accumulate(pipe: Connection, steps: list[list[Tensor]]) -> None:
    """Train with accelerate, of two batches to an update."""
    accelerator, model = new_accelerator(gradient_accumulation_steps=2), new_model(None)
    exclude_sharded(model)
    wrapped, optimizer = accelerator.prepare(model, SGD(model.parameters(), lr=1.0))
    for ids in steps:
        with accelerator.accumulate(wrapped):
            accelerator.backward(wrapped(ids[dist.get_rank()]))
            optimizer.step()
            optimizer.zero_grad()
    pipe.send([weight.detach().numpy() for weight in (model.table.weight, model.rest.weight)])


def test_accelerate_prepares_and_accumulates():
    steps, reference = batches(2), new_model(None)
    optimizer = SGD(reference.parameters(), lr=1.0)
    for first, second in zip(steps[::2], steps[1::2], strict=True):
        optimizer.zero_grad()
        for ids in first + second:
            (reference(ids) / 4).backward()
        optimizer.step()
    with mortal_ranks(accumulate, 2, steps) as ranks:
        shards, weights = zip(*([torch.tensor(part) for part in rank.receive()] for rank in ranks), strict=True)
    torch.testing.assert_close(assemble(shards, "contiguous"), reference.table.weight.detach(), rtol=0, atol=1e-6)
    for weight in weights:
        torch.testing.assert_close(weight, reference.rest.weight.detach(), rtol=0, atol=1e-6)


def prepare_and_forget(pipe: Connection) -> None:
    model = Model(DistributedEmbedding(8, D, seed=1).requires_grad_(False))
    wrapped = new_accelerator().prepare(model)
    with pytest.raises(RuntimeError) as caught:
        wrapped(torch.tensor([1, 6]))
    pipe.send(str(caught.value))


def test_accelerate_around_a_frozen_table_that_was_not_excluded_is_refused():
    with mortal_ranks(prepare_and_forget, 2) as ranks:
        texts = [rank.receive() for rank in ranks]
    assert texts[0] == texts[1]
    assert "exclude_sharded(model) before" in texts[0]
    assert "accelerator.prepare(model)" in texts[0]


def average(group: dist.ProcessGroup | None, steps: list[list[Tensor]], mine: slice) -> tuple[Tensor, Tensor]:
    """The shard of an averaged model, and what it returns for the last batches after each step, summed."""
    model = new_model(group)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer, total = SparseSGD([model.table.weight], lr=1.0), torch.zeros(())
    for ids in steps:
        optimizer.zero_grad()
        for batch in ids[mine]:
            (model(batch) / len(ids[mine])).backward()
        optimizer.step()
        averaged.update_parameters(model)
        with torch.no_grad():
            total += sum(averaged(batch) for batch in ids[mine])
    return averaged.module.table.weight.detach(), total


def average_on_a_rank(group: dist.ProcessGroup, steps: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    rank = dist.get_rank(group)
    return average(group, steps, slice(rank, rank + 1))


def test_an_averaged_model_follows_the_table(ranks: RankPool):
    steps = batches(2)
    expected, total = average(None, steps, slice(None))
    shards, totals = zip(*ranks.run(average_on_a_rank, steps, world_size=2), strict=True)
    torch.testing.assert_close(assemble(shards, "contiguous"), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(sum(totals), total, rtol=0, atol=1e-6)


class Ids(Dataset):
    """Batches of a rank; with a table, their rows."""

    def __init__(self, rank: int, table: nn.Module | None = None) -> None:
        self.rank, self.table = rank, table

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> Tensor:
        ids = batches(2)[step][self.rank]
        return ids if self.table is None else self.table(ids)


def load_with_workers(group: dist.ProcessGroup, transport: str) -> list[Tensor]:
    model, rank = new_model(group, transport), dist.get_rank(group)
    optimizer = SparseSGD([model.table.weight], lr=1.0)
    multiprocessing.current_process()._config["daemon"] = False  # daemons, as test ranks are, may have no children
    settings: dict[str, Any] = {"batch_size": None, "num_workers": 2, "multiprocessing_context": "fork"}
    for ids in DataLoader(Ids(rank), **settings):
        optimizer.zero_grad()
        model(ids).backward()
        optimizer.step()
    with pytest.raises(RuntimeError, match=f"is in a process that was forked from rank {rank}, and does not belong to"):
        next(iter(DataLoader(Ids(rank, model.table), **settings)))
    model(torch.arange(3))  # which the workers have not disturbed
    return [model.table.weight.detach()]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # is multi-threaded, and forks
def test_workers_of_a_loader_are_forked_from_a_rank(ranks: RankPool, transport: str):
    steps, reference = batches(2), new_model(None)
    optimizer = SparseSGD([reference.table.weight], lr=1.0)
    for ids in steps:
        optimizer.zero_grad()
        for mine in ids:
            (reference(mine) / 2).backward()
        optimizer.step()
    [shards] = zip(*ranks.run(load_with_workers, transport, world_size=2), strict=True)
    torch.testing.assert_close(assemble(shards, "contiguous"), reference.table.weight.detach(), rtol=0, atol=1e-6)


def look_up_in_threads(group: dist.ProcessGroup, transport: str) -> list[str]:
    """Two threads, each with the same number of lookups; what went wrong, if anything."""
    table, problems = new_model(group, transport).table, []
    whole = table.to_embedding().weight

    def work(seed: int) -> None:
        try:
            for step in range(20):
                ids = random_ids(V, (7,), seed + step)
                assert torch.equal(table(ids), whole[ids])
        except Exception as error:
            problems.append(repr(error))

    threads = [threading.Thread(target=work, args=(100 * number + dist.get_rank(group),)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_lookups_of_two_threads_do_not_mix(ranks: RankPool, transport: str):
    assert ranks.run(look_up_in_threads, transport, world_size=2) == [[], []]
