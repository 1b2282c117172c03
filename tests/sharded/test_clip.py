"""Clipping by the norm of all shards and of the replicated parameters."""

import math
from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.clip import clip_grad_norm_
from tests.rank_pool import RankPool
from tests.sharded.collectives import counted_collectives
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids, random_rows

V, D = 131, 5


def loss_of(rows: Tensor) -> Tensor:
    return (rows * random_rows(tuple(rows.shape), seed=0) + rows.square()).sum()


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int64)


def make_core() -> nn.Module:
    """With gradients as after DDP's all_reduce."""
    core = nn.Linear(D, 3, dtype=torch.float64)
    for seed, parameter in enumerate(core.parameters()):
        parameter.grad = random_rows(tuple(parameter.shape), seed)
    return core


def make_tables(
    group: dist.ProcessGroup, second_group: dist.ProcessGroup | None, transport: str = "auto"
) -> list[DistributedEmbedding]:
    """One of each layout; second_group None is a new group of all four ranks."""
    settings = {"dtype": torch.float64, "transport": transport}
    return [
        DistributedEmbedding(V, D, layout=layout, process_group=table_group, seed=seed, **settings)
        for seed, (layout, table_group) in enumerate(zip(LAYOUTS, (group, second_group), strict=True))
    ]


def gradients_of(core: nn.Module, tables: list[DistributedEmbedding]) -> list[Tensor]:
    """Copies of the gradients; dense of the tables."""
    gradients = [*(p.grad for p in core.parameters()), *(table.weight.grad for table in tables)]
    return [gradient.to_dense().clone() for gradient in gradients if gradient is not None]


def clip(
    group: dist.ProcessGroup, max_norms: list[float], ids: list[Tensor], dense: bool, transport: str
) -> tuple[list[Tensor], list[tuple[Tensor, list[Tensor], Counter[str]]]]:
    """Shards of two tables, and for each max_norm the norm, the gradients after it, and the collectives called.

    The tables have one group, but two if there are 4 ranks. dense: the second table's gradient is dense.
    """
    results = []
    tables = make_tables(group, None if dist.get_world_size(group) == 4 else group, transport)
    for max_norm in max_norms:
        core = make_core()
        for table in tables:
            table.weight.grad = None
            loss_of(table(ids[dist.get_rank(group)])).backward()
        if dense:
            tables[1].weight.grad = tables[1].weight.grad.to_dense()
        with counted_collectives() as counts:
            norm = clip_grad_norm_(core, tables, max_norm)
        assert tables[1].weight.grad.is_sparse is not dense
        results.append((norm, gradients_of(core, tables), counts["main"]))
    if tables[1].process_group not in (group, None):
        dist.destroy_process_group(tables[1].process_group)
    return [table.weight.detach() for table in tables], results


def clip_unsharded(weights: list[Tensor], max_norm: float, ids: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    core = make_core()
    tables = nn.ModuleList(nn.Embedding(V, D, _weight=weight.clone()) for weight in weights)
    for table in tables:
        sum((loss_of(table(mine)) for mine in ids), torch.zeros(())).div(len(ids)).backward()
    parameters = [*core.parameters(), *tables.parameters()]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return norm, [parameter.grad for parameter in parameters]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_clipping_equals_that_of_the_unsharded_model(ranks: RankPool, world_size: int, dense: bool, transport: str):
    max_norms = [1e-3, 1.0, 1e6, math.inf]
    ids = [random_ids(V, (rank * 8,), seed=rank) for rank in range(1, world_size)] + [torch.arange(40)]
    shards, results = zip(*ranks.run(clip, max_norms, ids, dense, transport, world_size=world_size), strict=True)
    weights = [assemble(table, layout) for table, layout in zip(zip(*shards, strict=True), LAYOUTS, strict=True)]
    name = {"collective": "all_to_all_single", "shared_memory": "meet"}[transport]
    for max_norm, clipped in zip(max_norms, zip(*results, strict=True), strict=True):
        norm, expected = clip_unsharded(weights, max_norm, ids)
        assert 10 < norm < 1e4
        for rank_norm, after, collectives in clipped:
            assert collectives == Counter({name: {1: 0, 3: 1, 4: 2}[world_size]})  # one for each group
            assert rank_norm.dtype == torch.float64
            assert torch.equal(bits(rank_norm), bits(clipped[0][0]))
            torch.testing.assert_close(rank_norm, norm, rtol=1e-9, atol=0)
            assert all(torch.equal(*pair) for pair in zip(after[:2], clipped[0][1][:2], strict=True))
        first, second = zip(*(after[2:] for _, after, _ in clipped), strict=True)
        actual = [*clipped[0][1][:2], assemble(first, LAYOUTS[0]), assemble(second, LAYOUTS[1])]
        for gradient, reference in zip(actual, expected, strict=True):
            # torch divides by norm + 1e-6, we by the norm itself.
            torch.testing.assert_close(gradient, reference, rtol=1e-6 / 10, atol=1e-9)


def spoil_and_clip(
    group: dist.ProcessGroup, spoilt: dict[int, str], value: float, raise_error: bool
) -> tuple[float, bool]:
    """The norm, and whether gradients kept every bit, after the given ranks spoilt a number of a "table" or "core"."""
    core, tables = make_core(), make_tables(group, group)
    for table in tables:
        loss_of(table(torch.arange(V))).backward()
    match spoilt.get(dist.get_rank(group)):
        case "core":
            core.weight.grad[0, 0] = value
        case "table":
            tables[1].weight.grad.values()[0, 0] = value
    before = gradients_of(core, tables)
    norm = clip_grad_norm_(core, tables, 1.0, error_if_nonfinite=raise_error)
    pairs = zip(before, gradients_of(core, tables), strict=True)
    return norm.item(), all(torch.equal(bits(old), bits(new)) for old, new in pairs)


SPOILT = [
    ({1: "core"}, "dense parameter on rank 1"),
    ({2: "table"}, "table on rank 2"),
    ({2: "table", 1: "core"}, "dense parameter on rank 1"),
    ({0: "table", 1: "core"}, "table on rank 0"),
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoilt", [spoilt for spoilt, _ in SPOILT], ids=str)
def test_what_is_not_finite_on_one_rank_makes_the_norm_nan_on_all(
    ranks: RankPool, spoilt: dict[int, str], value: float
):
    for norm, kept in ranks.run(spoil_and_clip, spoilt, value, False, world_size=3):
        assert math.isnan(norm)
        assert kept


@pytest.mark.parametrize(("spoilt", "culprit"), SPOILT, ids=str)
def test_all_ranks_raise_the_error_of_the_first_that_is_not_finite(
    ranks: RankPool, spoilt: dict[int, str], culprit: str
):
    errors = ranks.run_expecting_errors(spoil_and_clip, spoilt, math.inf, True, world_size=3)
    assert len({(error.type_name, error.message) for error in errors}) == 1
    assert errors[0].type_name == "RuntimeError"
    assert errors[0].message.startswith(f"the gradient of a {culprit} is not finite; the gradients were left")


def test_finite_gradients_raise_no_error(ranks: RankPool):
    for norm, kept in ranks.run(spoil_and_clip, {}, 0.0, True, world_size=2):
        assert 10 < norm < 1e4
        assert not kept  # they were clipped


def clip_on_a_mesh(_: dist.ProcessGroup, ids: list[Tensor], spoilt_rank: int | None) -> tuple[Tensor, float, Tensor]:
    """Shard, norm and clipped gradient of a table on two replicas of two shards."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    table = DistributedEmbedding(V, D, device_mesh=mesh, dtype=torch.float64, seed=0)
    core = make_core()
    loss_of(table(ids[dist.get_rank()])).backward()
    if dist.get_rank() == spoilt_rank:
        core.weight.grad[0, 0] = torch.nan
    norm = clip_grad_norm_(core, [table], max_norm=1.0).item()
    return table.weight.detach(), norm, table.weight.grad.to_dense()


def test_replicas_count_once(ranks: RankPool):
    ids = [random_ids(V, (10 * rank,), seed=rank) for rank in range(4)]
    shards, norms, gradients = zip(*ranks.run(clip_on_a_mesh, ids, None), strict=True)
    norm, expected = clip_unsharded([assemble(shards[:2], "contiguous")], 1.0, ids)
    assert len(set(norms)) == 1
    assert norms[0] == pytest.approx(norm.item(), rel=1e-9)
    for replica in (gradients[:2], gradients[2:]):
        torch.testing.assert_close(assemble(replica, "contiguous"), expected[2], rtol=1e-6 / 10, atol=1e-9)


@pytest.mark.parametrize("spoilt_rank", [0, 3])
def test_all_replicas_learn_what_is_not_finite(ranks: RankPool, spoilt_rank: int):
    results = ranks.run(clip_on_a_mesh, [torch.arange(V)] * 4, spoilt_rank)
    assert all(math.isnan(norm) for _, norm, _ in results)


def clip_missing(group: dist.ProcessGroup) -> float:
    """The norm where only rank 0 has gradients: none of the core, none of one table."""
    table = DistributedEmbedding(V, 1, process_group=group)
    other = DistributedEmbedding(V, 1, process_group=group)
    if dist.get_rank(group) == 0:
        table.weight.grad = torch.sparse_coo_tensor([[0, 1]], [[3.0], [4.0]], table.weight.shape, check_invariants=True)
    return clip_grad_norm_([], [table, other], max_norm=1.0).item()


def test_missing_gradients_count_as_zero(ranks: RankPool):
    assert ranks.run(clip_missing, world_size=2) == [5.0, 5.0]
    assert clip_grad_norm_(nn.Linear(2, 2), [], max_norm=1.0) == 0


def test_a_row_that_is_given_twice_counts_once_with_its_sum():
    table = DistributedEmbedding(V, 1)
    gradient = torch.sparse_coo_tensor([[5, 5]], [[3.0], [4.0]], table.weight.shape, check_invariants=True)
    table.weight.grad = gradient
    assert clip_grad_norm_([], [table], max_norm=3.5) == 7
    assert table.weight.grad.to_dense()[5] == 3.5


def test_tables_count_once_however_often_they_are_given():
    model = nn.ModuleDict({"table": DistributedEmbedding(V, 1), "output": nn.Linear(1, 1, bias=False)})
    table = model["table"]
    table(torch.tensor([5])).mul(3).sum().backward()
    model["output"].weight.grad = torch.tensor([[4.0]])
    assert clip_grad_norm_(model, [table, table], max_norm=2.5) == 5
    assert table.weight.grad.to_dense()[5] == 1.5
    assert model["output"].weight.grad == 2


@pytest.mark.parametrize("max_norm", [-1.0, math.nan])
def test_a_negative_max_norm_is_refused(max_norm: float):
    with pytest.raises(ValueError, match=rf"^max_norm must not be negative, but is {max_norm}$"):
        clip_grad_norm_([], [], max_norm)


def forget_a_table(group: dist.ProcessGroup) -> None:
    first, second = make_tables(group, group)
    clip_grad_norm_(nn.ModuleList([make_core(), first, second]), [first], 1.0)


def test_a_table_that_was_forgotten_is_not_taken_for_a_dense_parameter(ranks: RankPool):
    errors = ranks.run_expecting_errors(forget_a_table, world_size=2)
    assert {(error.type_name, error.message) for error in errors} == {
        (
            "ValueError",
            "dense holds the weight of a table that is not in tables, and would be taken for a replicated parameter: "
            "pass all tables of the model",
        )
    }
