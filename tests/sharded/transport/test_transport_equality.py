"""Collectives and shared memory give the same bits, in whatever uses them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Adagrad, Optimizer

from dist_s2s.sharded import DistributedEmbedding, Lookahead, RowWiseAdagrad, SparseAdam, clip_grad_norm_, lookup
from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.output.sampled_softmax import SampledSoftmaxLoss
from tests.rank_pool import RankPool
from tests.rank_worker import second_group
from tests.sharded.collectives import first_messages_of
from tests.sharded.reference import LAYOUTS, TRANSPORTS, random_ids, random_rows

pytestmark = pytest.mark.skipif("shared_memory" not in TRANSPORTS, reason="shared memory needs Linux")
SIZES = ((131, 5), (2, 3), (57, 1))  # of three tables; the second has fewer rows than there are ranks
V, D, STEPS = 131, 6, 4
OPTIMIZERS: tuple[Callable[..., Optimizer], ...] = (partial(RowWiseAdagrad, lr=0.3), partial(SparseAdam, lr=0.1))
# What a scenario computes with tables of one transport: everything that could differ.
Scenario = Callable[..., list[Tensor]]


def same_by_both(group: dist.ProcessGroup, scenario: Scenario, *args: Any) -> int:
    """Asserts that a scenario gives the same bits by both transports; returns how many bytes it gave."""
    with first_messages_of(32):  # so that rows travel in messages of their own
        collective = scenario(group, "collective", *args)
    shared = scenario(group, "shared_memory", *args)
    assert len(collective) == len(shared)
    for number, (expected, mine) in enumerate(zip(collective, shared, strict=True)):
        assert (mine.dtype, mine.shape) == (expected.dtype, expected.shape), number
        same = mine.reshape(-1).contiguous().view(torch.uint8) == expected.reshape(-1).contiguous().view(torch.uint8)
        assert same.all(), f"tensor {number} differs"
    return sum(each.numel() * each.element_size() for each in shared)


def check(ranks: RankPool, world_size: int, scenario: Scenario, *args: Any) -> None:
    assert sum(ranks.run(same_by_both, scenario, *args, world_size=world_size)) > 0


def table_of(name: str, *size: int, **settings: Any) -> DistributedEmbedding:
    table = DistributedEmbedding(*size, **{"transport": name, "seed": 5, **settings})
    assert table.transport.name == name
    return table


def gradients(tables: list[DistributedEmbedding]) -> list[Tensor]:
    """Of a sparse one the rows and values: which rows have a gradient must not differ either."""
    parts: list[Tensor] = []
    for gradient in (table.weight.grad for table in tables):
        parts += [gradient.indices(), gradient.values()] if gradient.is_sparse else [gradient]
    return [part.clone() for part in parts]


def loss_of(rows: list[Tensor]) -> Tensor:
    wide = [block.double() for block in rows]
    return torch.stack([(block * random_rows(block.shape, 0) + block.square()).sum() for block in wide]).sum()


def ids_of(rank: int, step: int) -> list[Tensor]:
    """Of three tables; few rows, which come again, none on rank 0 in step 1 and on every rank but 0 in step 2."""
    number = 0 if (rank == 0) == (step == 1) and step in (1, 2) else 3 + 4 * rank + step
    return [random_ids(size[0], (number, 1 + t), seed=100 * step + 10 * rank + t) for t, size in enumerate(SIZES)]


def train(group: dist.ProcessGroup, name: str, settings: dict[str, Any], ahead: bool = False) -> list[Tensor]:
    """Rows, losses, gradients and norms of every step, and the tables after the last."""
    tables = [table_of(name, *size, process_group=group, **settings) for size in SIZES]
    optimizers = [make([table.weight for table in tables[t::2]]) for t, make in enumerate(OPTIMIZERS)]
    batches = [ids_of(dist.get_rank(group), step) for step in range(STEPS)]
    seen: list[Tensor] = []
    steps = ((ids, lookup(tables, ids)) for ids in batches)
    if ahead:
        steps = iter(Lookahead(tables, batches, lambda ids: ids, second_group(dist.get_world_size(group))))
    for _, rows in steps:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = loss_of(rows)
        loss.backward()
        seen += [*(block.detach() for block in rows), loss.detach(), *gradients(tables)]
        seen.append(clip_grad_norm_(nn.Module(), tables, max_norm=5.0))
        for optimizer in optimizers:
            optimizer.step()
    return seen + [table.weight.detach() for table in tables]


SETTINGS: list[dict[str, Any]] = [
    {"dtype": torch.float64},
    {"dtype": torch.float32, "comm_dtype": torch.bfloat16, "padding_idx": 1},
    {"dtype": torch.bfloat16, "scale_grad_by_freq": True},
    {"dtype": torch.float64, "comm_dtype": torch.float16, "deduplicate": False, "grad_reduction": "sum"},
    {"dtype": torch.float32, "max_norm": 1.0, "scale_grad_by_freq": True, "padding_idx": 0},
]


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_tables(ranks: RankPool, world_size: int, settings: dict[str, Any]):
    for layout in LAYOUTS:
        check(ranks, world_size, train, {"layout": layout, **settings})


@pytest.mark.parametrize("world_size", [2, 3])
def test_batches_ahead(ranks: RankPool, world_size: int):
    check(ranks, world_size, train, {"dtype": torch.float32}, True)


def train_on_a_mesh(_: dist.ProcessGroup, name: str) -> list[Tensor]:
    """A table sharded over pairs of ranks and replicated: shared memory is within the replica alone."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    table = table_of(name, V, D, device_mesh=mesh, layout="round_robin")
    optimizer, seen = RowWiseAdagrad([table.weight], lr=0.3), []
    for step in range(STEPS):
        optimizer.zero_grad()
        rows = table(ids_of(dist.get_rank(), step)[0])
        loss_of([rows]).backward()
        seen += [rows.detach(), *gradients([table])]
        optimizer.step()
    return [*seen, table.weight.detach()]


def test_replicas_of_shards(ranks: RankPool):
    check(ranks, 4, train_on_a_mesh)


LOSSES: list[Callable[..., nn.Module]] = [
    partial(VocabParallelCrossEntropy, label_smoothing=0.1, chunk_elements=150),
    partial(SampledSoftmaxLoss, num_samples=20),
]


def train_output(
    group: dist.ProcessGroup, name: str, kind: Callable[..., nn.Module], layout: str, settings: dict[str, Any]
) -> list[Tensor]:
    """Losses, gradients and tables of a sharded output layer; rank 1 has no token in step 1."""
    settings = {"process_group": group, "layout": layout, **settings}
    tables = [table_of(name, V, D, init_std=0.4, **settings), table_of(name, V, 1, **settings)]
    loss, rank, seen = kind(*tables), dist.get_rank(group), []
    optimizer = Adagrad([table.weight for table in tables], lr=0.1)  # for gradients that are dense, and sparse ones
    for step in range(STEPS):
        optimizer.zero_grad()
        target = random_ids(V, (0 if (rank, step) == (1, 1) else 2 + 3 * rank, 2), seed=10 * step + rank)
        hidden = random_rows((*target.shape, D), seed=step).to(tables[0].weight.dtype).requires_grad_()
        value = loss(hidden, target)
        value.backward()
        seen += [value.detach(), hidden.grad, *gradients(tables)]
        optimizer.step()
    if isinstance(loss, VocabParallelCrossEntropy):
        seen += [part.detach() for part in loss.top_k(hidden, 7, forbidden=(3,))]
    return seen + [table.weight.detach() for table in tables]


@pytest.mark.parametrize("kind", LOSSES, ids=["cross entropy and top k", "sampled softmax"])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_output_layers(ranks: RankPool, world_size: int, kind: Callable[..., nn.Module]):
    for layout, dtype in zip(LAYOUTS, (torch.float32, torch.float64), strict=True):
        check(ranks, world_size, train_output, kind, layout, {"dtype": dtype})


def convert_and_change(group: dist.ProcessGroup, name: str) -> list[Tensor]:
    """A table that was whole, grows between two lookups, and begins anew in some rows."""
    table = DistributedEmbedding.from_pretrained(random_rows((V, D), 0), process_group=group, transport=name, seed=5)
    rank, seen = dist.get_rank(group), []
    for _ in range(2):
        seen.append(table(torch.arange(table.num_embeddings - rank)).detach())
        table.grow(table.num_embeddings + 9)
        table.reset_rows(torch.tensor([rank, 60 + rank]))
    return [*seen, table.weight.detach(), table.to_embedding().weight.detach()]


def test_tables_that_grow(ranks: RankPool):
    check(ranks, 3, convert_and_change)
