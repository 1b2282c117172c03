"""Optimizers and clipping on shards do what they do on whole tables, and touch no other row."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Optimizer, SparseAdam

from dist_s2s.sharded import DistributedEmbedding, RowWiseAdagrad, clip_grad_norm_
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_ids, random_rows

V, D, STEPS = 131, 5, 5
OPTIMIZERS: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "SGD": partial(SGD, lr=0.5),
    "Adagrad": partial(Adagrad, lr=0.3),
    "SparseAdam": partial(SparseAdam, lr=0.1),
    "RowWiseAdagrad": partial(RowWiseAdagrad, lr=0.3, eps=0.1),
}


def batches(world_size: int) -> list[list[Tensor]]:
    """Ids by step and rank. Rows come and go, one rank has nothing in step 2 and no rank in step 3."""
    steps = [[random_ids(V - 30, (6, 3), seed=10 * step + rank) for rank in range(world_size)] for step in range(STEPS)]
    steps[2][-1] = steps[2][-1][:0]
    steps[3] = [ids[:0] for ids in steps[3]]
    return steps


def loss_of(rows: Tensor) -> Tensor:
    """Not linear, so that an error in one step shows in the next gradient."""
    return (rows * random_rows(tuple(rows.shape), seed=0) + rows.square()).sum()


def bits(weight: Tensor) -> Tensor:
    """A copy of the bits, for which 0.0 and -0.0 are different."""
    return weight.detach().view(torch.int64).clone()


def train(group: dist.ProcessGroup, layout: str, steps: list[list[Tensor]]) -> dict[str, list[Tensor]]:
    """For each optimizer the shard before the first step and after every step."""
    history = {}
    for name, make_optimizer in OPTIMIZERS.items():
        table = DistributedEmbedding(V, D, layout=layout, dtype=torch.float64, process_group=group, seed=1)
        with torch.no_grad():
            table.weight[:, 0] = -0.0  # adding 0.0 to it changes its bits
        optimizer = make_optimizer([table.weight])
        history[name] = [table.weight.detach().clone()]
        for ids in steps:
            optimizer.zero_grad()
            loss_of(table(ids[dist.get_rank(group)])).backward()
            optimizer.step()
            history[name].append(table.weight.detach().clone())
    return history


class DenseRowWiseAdagrad(Optimizer):
    """The formula itself, over every row of a dense gradient."""

    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__(parameters, {})
        self.sums = torch.zeros(V, 1, dtype=torch.float64)

    @torch.no_grad()
    def step(self) -> None:
        (parameter,) = self.param_groups[0]["params"]
        gradient = parameter.grad.to_dense()
        self.sums += gradient.pow(2).mean(1, keepdim=True)
        parameter -= 0.3 * gradient / (self.sums.sqrt() + 0.1)


def train_unsharded(name: str, weight: Tensor, steps: list[list[Tensor]]) -> Tensor:
    """The whole table after all steps on the batches of all ranks."""
    table = nn.Embedding(V, D, sparse=True, _weight=weight.clone())
    make_optimizer = DenseRowWiseAdagrad if name == "RowWiseAdagrad" else OPTIMIZERS[name]
    optimizer = make_optimizer([table.weight])
    for ids in steps:
        optimizer.zero_grad()
        sum((loss_of(table(mine)) for mine in ids), torch.zeros(())).div(len(ids)).backward()
        with torch.sparse.check_sparse_tensor_invariants():  # torch warns unless told to check or not
            optimizer.step()
    return table.weight.detach()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_five_steps_equal_the_unsharded_table(ranks: RankPool, world_size: int, layout: str):
    steps = batches(world_size)
    results = ranks.run(train, layout, steps, world_size=world_size)
    for name in OPTIMIZERS:
        history = [assemble(shards, layout) for shards in zip(*(result[name] for result in results), strict=True)]
        expected = train_unsharded(name, history[0], steps)
        assert (expected - history[0]).abs().max() > 0.1
        torch.testing.assert_close(history[-1], expected, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_no_rank_has_seen_keep_every_bit(ranks: RankPool, layout: str):
    steps = batches(3)
    results = ranks.run(train, layout, steps, world_size=3)
    for name in OPTIMIZERS:
        history = [assemble(shards, layout) for shards in zip(*(result[name] for result in results), strict=True)]
        for step, ids in enumerate(steps):
            changed = (bits(history[step]) != bits(history[step + 1])).any(1)
            seen = torch.cat([mine.flatten() for mine in ids]).unique()
            assert torch.equal(changed.nonzero()[:, 0], seen), (name, step)


def train_tiny(group: dist.ProcessGroup) -> list[int]:
    """Rows of each optimizer's shard after a step on a table with fewer rows than ranks."""
    sizes = []
    for make_optimizer in OPTIMIZERS.values():
        table = DistributedEmbedding(2, D, process_group=group)
        optimizer = make_optimizer([table.weight])
        table(torch.tensor([1])).sum().backward()
        optimizer.step()
        sizes.append(len(table.weight))
    return sizes


def test_optimizers_accept_a_shard_without_rows(ranks: RankPool):
    assert ranks.run(train_tiny, world_size=3) == [[1] * 4, [1] * 4, [0] * 4]


def test_row_wise_adagrad_keeps_one_number_a_row():
    table, untouched = (DistributedEmbedding(V, D, dtype=torch.float64) for _ in range(2))
    optimizer = RowWiseAdagrad([table.weight, untouched.weight])
    before = untouched.weight.detach().clone()

    def closure() -> float:
        loss = (table(torch.tensor([3, 8, 3])) * torch.arange(D)).sum()
        loss.backward()
        return loss.item()

    expected_loss = closure()
    table.weight.grad = None
    assert optimizer.step(closure) == expected_loss
    sums = optimizer.state[table.weight]["sum"]
    square = (torch.arange(D) ** 2).double().mean()
    assert sums.shape == (V,)
    assert sums.nonzero().flatten().tolist() == [3, 8]
    torch.testing.assert_close(sums[[3, 8]], torch.stack([4 * square, square]), rtol=1e-12, atol=0)
    assert torch.equal(untouched.weight, before)  # it has no gradient


def test_row_wise_adagrad_refuses_what_it_cannot_do():
    weight = nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"^lr must not be negative, but is -0.1$"):
        RowWiseAdagrad([weight], lr=-0.1)
    with pytest.raises(ValueError, match=r"^eps must not be negative, but is -1.0$"):
        RowWiseAdagrad([weight], eps=-1.0)
    weight.grad = torch.ones(2, 3)
    with pytest.raises(TypeError, match=r"^RowWiseAdagrad needs sparse gradients; give dense parameters to"):
        RowWiseAdagrad([weight]).step()


def gradients_of(core: nn.Module, tables: list[DistributedEmbedding]) -> list[Tensor]:
    """Copies of the gradients; dense of the tables."""
    gradients = [*(p.grad for p in core.parameters()), *(table.weight.grad for table in tables)]
    return [gradient.to_dense().clone() for gradient in gradients if gradient is not None]


def clip(
    group: dist.ProcessGroup, max_norms: list[float], ids: list[Tensor], spoil: str
) -> tuple[list[Tensor], list[tuple[Tensor, list[Tensor], list[Tensor]]]]:
    """Shards of two tables, and for each max_norm the norm and the gradients before and after.

    The tables have one group, but two if there are 4 ranks.
    Rank 0 spoils one number of the "core", one of a "table", or "nothing".
    """
    rank, results = dist.get_rank(group), []
    core = nn.Linear(D, 3, dtype=torch.float64)
    second_group = None if dist.get_world_size(group) == 4 else group  # None: a new group of all four ranks
    tables = [
        DistributedEmbedding(V, D, layout=layout, dtype=torch.float64, process_group=table_group, seed=seed)
        for seed, (layout, table_group) in enumerate(zip(LAYOUTS, (group, second_group), strict=True))
    ]
    for max_norm in max_norms:
        for seed, parameter in enumerate(core.parameters()):
            parameter.grad = random_rows(tuple(parameter.shape), seed)  # as after DDP's all_reduce
        for table in tables:
            table.weight.grad = None
            loss_of(table(ids[rank])).backward()
        if spoil == "core":
            core.weight.grad[0, 0] = torch.nan
        if spoil == "table" and rank == 0:
            tables[0].weight.grad.values()[0, 0] = torch.inf
        before = gradients_of(core, tables)
        norm = clip_grad_norm_(core, tables, max_norm)
        results.append((norm, before, gradients_of(core, tables)))
    if second_group is None:
        dist.destroy_process_group(tables[1].process_group)
    return [table.weight.detach() for table in tables], results


def clip_unsharded(weights: list[Tensor], max_norm: float, ids: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    core = nn.Linear(D, 3, dtype=torch.float64)
    tables = nn.ModuleList(nn.Embedding(V, D, _weight=weight.clone()) for weight in weights)
    for seed, parameter in enumerate(core.parameters()):
        parameter.grad = random_rows(tuple(parameter.shape), seed)
    for table in tables:
        sum((loss_of(table(mine)) for mine in ids), torch.zeros(())).div(len(ids)).backward()
    parameters = [*core.parameters(), *tables.parameters()]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return norm, [parameter.grad for parameter in parameters]


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_clipping_equals_that_of_the_unsharded_model(ranks: RankPool, world_size: int):
    max_norms = [1e-3, 1.0, 1e6]
    ids = [random_ids(V, (rank * 8,), seed=rank) for rank in range(1, world_size)] + [torch.arange(40)]
    shards, results = zip(*ranks.run(clip, max_norms, ids, "nothing", world_size=world_size), strict=True)
    weights = [assemble(table, layout) for table, layout in zip(zip(*shards, strict=True), LAYOUTS, strict=True)]
    for max_norm, clipped in zip(max_norms, zip(*results, strict=True), strict=True):
        norm, expected = clip_unsharded(weights, max_norm, ids)
        assert 10 < norm < 1e4
        for rank_norm, _, after in clipped:
            assert rank_norm == clipped[0][0]
            torch.testing.assert_close(rank_norm, norm, rtol=1e-9, atol=0)
            assert all(torch.equal(*pair) for pair in zip(after[:2], clipped[0][2][:2], strict=True))
        first, second = zip(*(after[2:] for _, _, after in clipped), strict=True)
        actual = [*clipped[0][2][:2], assemble(first, LAYOUTS[0]), assemble(second, LAYOUTS[1])]
        for gradient, reference in zip(actual, expected, strict=True):
            # torch divides by norm + 1e-6, we by the norm itself.
            torch.testing.assert_close(gradient, reference, rtol=1e-6 / 10, atol=1e-9)


@pytest.mark.parametrize("spoil", ["core", "table"])
def test_a_norm_that_is_not_finite_leaves_the_gradients(ranks: RankPool, spoil: str):
    ids = [torch.arange(V)] * 2
    for _, [(norm, before, after)] in ranks.run(clip, [1.0], ids, spoil, world_size=2):
        assert not norm.isfinite()
        assert all(torch.equal(bits(old), bits(new)) for old, new in zip(before, after, strict=True))


def clip_missing(group: dist.ProcessGroup) -> float:
    """The norm where only rank 0 has gradients: none of the core, none of one table."""
    table = DistributedEmbedding(V, 1, process_group=group)
    other = DistributedEmbedding(V, 1, process_group=group)
    if dist.get_rank(group) == 0:
        table.weight.grad = torch.sparse_coo_tensor([[0, 1]], [[3.0], [4.0]], table.weight.shape)
    return clip_grad_norm_([], [table, other], max_norm=1.0).item()


def test_missing_gradients_count_as_zero(ranks: RankPool):
    assert ranks.run(clip_missing, world_size=2) == [5.0, 5.0]
    assert clip_grad_norm_(nn.Linear(2, 2), [], max_norm=1.0) == 0
