"""VocabParallelCrossEntropy against F.cross_entropy with the whole table and the tokens of all ranks."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.functional import cross_entropy

from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_ids, random_rows
from tests.sharded.reference_cross_entropy import (
    IGNORED,
    Case,
    H,
    Result,
    V,
    close,
    compare,
    compute,
    targets_of,
)


def all_cases(world_size: int) -> list[Case]:
    uneven = targets_of(world_size, V, (4, 3), (0, 3), (17,), (2, 1, 2))
    nobody = [torch.full((3,), IGNORED), *[torch.empty(0, dtype=torch.int64)] * (world_size - 1)]
    cases = []
    for layout in LAYOUTS:
        for smoothing in (0.0, 0.1):
            for reduction in ("mean", "sum"):
                settings = {"label_smoothing": smoothing, "reduction": reduction, "chunk_elements": 400}
                cases += [
                    Case(uneven, layout=layout, settings=settings),
                    Case(nobody, layout=layout, settings=settings),
                    Case(targets_of(world_size, 2, (7,), ()), 2, layout, settings=settings),  # 1 of 3 shards is empty
                    Case(uneven, 140, layout, settings={**settings, "num_classes": V}),
                    Case(targets_of(world_size, 3, (5,)), V, layout, settings={**settings, "num_classes": 3}),
                ]
        cases += [
            Case(uneven, layout=layout, has_bias=False),
            Case(uneven, layout=layout, grad_reduction="sum"),
            Case(uneven, layout=layout, settings={"chunk_elements": 1, "label_smoothing": 1.0}),
            Case([t.clamp(min=0) for t in uneven], layout=layout, settings={"ignore_index": 0}),
            Case([torch.full((6,), IGNORED), *uneven[1:]], layout=layout),  # the first rank has none that counts
        ]
    return cases


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_loss_and_gradients_equal_cross_entropy(ranks: RankPool, world_size: int) -> None:
    cases = all_cases(world_size)
    results = ranks.run(compute, cases, world_size=world_size)
    for case, result in zip(cases, zip(*results, strict=True), strict=True):
        compare(case, list(result))


def test_without_a_group_there_is_no_collective() -> None:
    cases = all_cases(1)
    for case, result in zip(cases, compute(None, cases), strict=True):
        compare(case, [result])
    output = cases[0].build(None)
    output(cases[0].hidden(0), cases[0].targets[0]).backward()
    assert output.table.statistics.collectives == 0


def count_collectives(group: dist.ProcessGroup, targets: list[Tensor]) -> tuple[list[int], list[bool]]:
    """Collectives of forward with gradients, of its backward, and of forward without; did anything need gradients?"""
    rank, counts = dist.get_rank(group), []
    case = Case(targets, settings={"chunk_elements": 2 * 66})
    output, hidden = case.build(group), case.hidden(rank)
    statistics = output.table.statistics
    statistics.reset()  # of the building
    loss = output(hidden, targets[rank])
    counts.append(statistics.collectives)
    loss.backward()
    counts.append(statistics.collectives - sum(counts))
    with torch.no_grad():
        silent = output(hidden, targets[rank])
    counts.append(statistics.collectives - sum(counts))
    assert torch.equal(silent, loss)
    assert statistics.bytes_sent > 0
    return counts, [loss.requires_grad, silent.requires_grad]


def test_one_collective_for_each_chunk(ranks: RankPool) -> None:
    targets = [torch.arange(5), torch.tensor([1, IGNORED, 2])]  # 7 tokens, 2 of them at a time
    for counts, requires_grad in ranks.run(count_collectives, targets, world_size=2):
        assert counts == [1 + 2 + 4 + 1, 1, 1 + 2 + 4]
        assert requires_grad == [True, False]


def need_some_gradients(group: dist.ProcessGroup, targets: list[Tensor]) -> list[Tensor | None]:
    """Gradients of hidden and of both tables; only ranks 0 and 2 want the first, and nobody the second."""
    rank = dist.get_rank(group)
    case = Case(targets)
    output, hidden = case.build(group), case.hidden(rank).requires_grad_(rank != 1)
    output.table.weight.requires_grad_(False)
    assert output.bias is not None
    output.bias.weight.requires_grad_(False)
    loss = output(hidden, targets[rank])
    loss.backward()
    assert output.table.weight.grad is None
    assert output.bias.weight.grad is None
    return [loss.detach(), hidden.grad]


def test_gradients_that_only_some_ranks_want(ranks: RankPool) -> None:
    targets = targets_of(3, V, (8,))
    wanted = ranks.run(need_some_gradients, targets, world_size=3)
    for rank, ((loss, gradient), [full]) in enumerate(
        zip(wanted, ranks.run(compute, [Case(targets)], world_size=3), strict=True)
    ):
        close(loss, full.loss)
        if rank == 1:
            assert gradient is None
        else:
            close(3 * gradient, full.hidden_gradient)


def use_tied(group: dist.ProcessGroup, ids: list[Tensor], layout: str) -> tuple[Tensor, Tensor]:
    """The shard and its gradient, of a table that is looked up and is the output layer."""
    mine = ids[dist.get_rank(group)]
    output = Case(ids, layout=layout).build(group)
    hidden = output.table(mine).sin()
    output(hidden, mine.roll(1)).backward()
    return output.table.weight.detach(), output.table.weight.grad


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tied_table_gets_the_gradients_of_both_uses(ranks: RankPool, layout: str) -> None:
    ids = [random_ids(V, (size,), seed=size) for size in (9, 0, 30)]
    shards, gradients = zip(*ranks.run(use_tied, ids, layout, world_size=3), strict=True)
    biases = [result.bias for [result] in ranks.run(compute, [Case(ids, layout=layout)], world_size=3)]
    weight, bias = assemble(shards, layout).requires_grad_(), assemble(biases, layout)
    hidden, targets = weight[torch.cat(ids)].sin(), torch.cat([mine.roll(1) for mine in ids])
    cross_entropy(hidden @ weight.t() + bias[:, 0], targets).backward()
    close(assemble(gradients, layout), weight.grad)


def use_replicas(group: dist.ProcessGroup, targets: list[Tensor]) -> Result:
    rank = dist.get_rank(group)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    table = DistributedEmbedding(V, H, seed=7, dtype=torch.float64, device_mesh=mesh)
    bias = DistributedEmbedding(V, 1, seed=8, dtype=torch.float64, device_mesh=mesh)
    output, hidden = VocabParallelCrossEntropy(table, bias), Case(targets).hidden(rank)
    wrong = torch.full_like(targets[rank], V if rank == 3 else 0)
    with pytest.raises(IndexError, match=rf"target {V} at position \(0,\) on rank 1 is outside"):
        output(hidden, wrong)  # also on the other replica
    loss = output(hidden, targets[rank])
    loss.backward()
    of_tokens = output.token_losses(hidden, targets[rank])
    tensors = (loss, of_tokens, hidden.grad, table.weight, table.weight.grad, bias.weight, bias.weight.grad)
    return Result(*(tensor.detach() for tensor in tensors))


def test_replicas_get_the_same_gradient(ranks: RankPool) -> None:
    targets = [random_ids(V, (size,), seed=size) for size in (5, 11, 8, 2)]
    results = ranks.run(use_replicas, targets)
    weight = assemble([result.weight for result in results[:2]], "contiguous").requires_grad_()
    bias = assemble([result.bias for result in results[:2]], "contiguous").requires_grad_()
    hidden = [Case(targets).hidden(rank) for rank in range(4)]
    mean = cross_entropy(torch.cat(hidden) @ weight.t() + bias[:, 0], torch.cat(targets))
    mean.backward()
    for replica in (results[:2], results[2:]):
        close(assemble([result.weight_gradient for result in replica], "contiguous"), weight.grad)
        close(assemble([result.bias_gradient for result in replica], "contiguous"), bias.grad)
    for one, other in zip(results[:2], results[2:], strict=True):
        assert torch.equal(one.weight_gradient, other.weight_gradient)
    close(torch.stack([result.loss for result in results]).mean(), mean.detach())


def use_low_precision(
    group: dist.ProcessGroup, how: str, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the gradients of hidden and shard, of 600 tokens one at a time; all have one target."""
    table = DistributedEmbedding(V, H, seed=7, process_group=group)
    output = VocabParallelCrossEntropy(table, chunk_elements=1, reduction="sum", label_smoothing=0.1)
    hidden = random_rows((300, H), seed=dist.get_rank(group)).abs().float()
    if how == "hidden":
        hidden = hidden.to(dtype)
    hidden.requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=how == "autocast"):
        loss = output(hidden, torch.full((300,), 3))
    loss.backward()
    return loss.detach(), hidden.grad, table.weight.grad


@pytest.fixture(scope="module")
def exact(ranks: RankPool) -> list[tuple[Tensor, Tensor, Tensor]]:
    return ranks.run(use_low_precision, "nowhere", world_size=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["hidden", "autocast"])
def test_low_precision_matrix_products_are_summed_in_float32(
    ranks: RankPool, exact: list[tuple[Tensor, Tensor, Tensor]], how: str, dtype: torch.dtype
) -> None:
    rough = ranks.run(use_low_precision, how, dtype, world_size=2)
    for expected, actual in zip(exact, rough, strict=True):
        assert actual[0].dtype == torch.float32
        assert actual[1].dtype == (dtype if how == "hidden" else torch.float32)
        assert actual[2].dtype == torch.float32
        for one, other in zip(expected, actual, strict=True):
            difference = torch.linalg.vector_norm(one - other.float()) / torch.linalg.vector_norm(one)
            assert 0 < difference < 0.01
        # Gradients of 600 tokens, mostly of the same sign: a sum in low precision would come to a standstill.
        torch.testing.assert_close(actual[2], expected[2], rtol=0.01, atol=0.05)


def test_classes_grow_with_the_table() -> None:
    table = DistributedEmbedding(V, H)
    output, bounded = VocabParallelCrossEntropy(table), VocabParallelCrossEntropy(table, num_classes=V)
    table.grow(V + 9)
    hidden = torch.zeros(1, H)
    assert float(output(hidden, torch.tensor([V + 8])).detach()) == pytest.approx(math.log(V + 9))
    assert float(bounded(hidden, torch.tensor([1])).detach()) == pytest.approx(math.log(V))
