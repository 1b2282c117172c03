"""DistributedEmbedding against nn.Embedding with the same whole table and the batches of all ranks."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_ids, random_rows

V, D = 131, 5


@dataclass(frozen=True)
class Case:
    """ids: by rank. settings: further arguments of the table."""

    ids: list[Tensor]
    num_embeddings: int = V
    layout: str = "contiguous"
    padding_idx: int | None = None
    dtype: torch.dtype = torch.float64
    settings: dict[str, Any] = field(default_factory=dict)
    output_gradients: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        gradients = [random_rows((*ids.shape, D), seed=rank).to(self.dtype) for rank, ids in enumerate(self.ids)]
        self.output_gradients.extend(gradients)

    def table(self, group: dist.ProcessGroup | None) -> DistributedEmbedding:
        return DistributedEmbedding(
            self.num_embeddings,
            D,
            self.padding_idx,
            layout=self.layout,
            dtype=self.dtype,
            process_group=group,
            seed=7,
            **self.settings,
        )

    def reference(self) -> nn.Embedding:
        names = ("max_norm", "norm_type", "scale_grad_by_freq")
        settings = {name: self.settings[name] for name in names if name in self.settings}
        weight = self.table(None).weight.detach().clone()
        return nn.Embedding(self.num_embeddings, D, self.padding_idx, _weight=weight, **settings)


def look_up(group: dist.ProcessGroup | None, cases: list[Case]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each case the shard, this rank's output, and the shard's gradient."""
    rank, results = 0 if group is None else dist.get_rank(group), []
    for case in cases:
        table = case.table(group)
        output = table(case.ids[rank])
        output.backward(case.output_gradients[rank])
        gradient = table.weight.grad
        assert gradient is not None
        check_sparse(gradient)
        results.append((table.weight.detach(), output.detach(), gradient))
    return results


def check_sparse(gradient: Tensor) -> None:
    """Claims of being coalesced are easily made, so look at the rows."""
    assert gradient.is_sparse
    assert gradient.is_coalesced()
    rows = gradient.indices()[0]
    assert torch.equal(rows, rows.unique())


def compare(case: Case, results: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    shards, outputs, gradients = zip(*results, strict=True)
    reference, scale = case.reference(), 1 if case.settings.get("grad_reduction") == "sum" else len(results)
    expected = reference(torch.cat([ids.flatten().long() for ids in case.ids]))
    pieces = expected.detach().split([ids.numel() for ids in case.ids])
    for ids, output, rows in zip(case.ids, outputs, pieces, strict=True):
        assert output.dtype == case.dtype
        assert torch.equal(output, rows.view(*ids.shape, D))
    assert torch.equal(assemble(shards, case.layout), reference.weight)  # max_norm has changed the same rows
    expected.backward(torch.cat([gradient.reshape(-1, D) for gradient in case.output_gradients]) / scale)
    whole = assemble([gradient.to_dense() for gradient in gradients], case.layout)
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1}[case.dtype]
    torch.testing.assert_close(whole, reference.weight.grad, rtol=0, atol=tolerance)
    seen = torch.zeros(case.num_embeddings)
    seen[torch.cat([ids.flatten().long() for ids in case.ids])] = 1
    if reference.padding_idx is not None:
        seen[reference.padding_idx] = 0
    has_row = [
        torch.zeros(len(shard)).index_fill(0, gradient.indices()[0], 1)
        for shard, gradient in zip(shards, gradients, strict=True)
    ]
    assert torch.equal(assemble(has_row, case.layout), seen)  # a gradient for the rows in use, and for no other


SETTINGS: list[dict[str, Any]] = [
    {"grad_reduction": "sum"},
    {"scale_grad_by_freq": True},
    {"max_norm": 1.5},
    {"max_norm": 2.0, "norm_type": 1.0, "scale_grad_by_freq": True, "grad_reduction": "sum"},
]


def id_kinds(num_rows: int, world_size: int) -> list[list[Tensor]]:
    """Ids by rank, of many shapes and kinds."""

    def of_shape(*shapes: tuple[int, ...]) -> list[Tensor]:
        return [random_ids(num_rows, shapes[rank % len(shapes)], seed=rank) for rank in range(world_size)]

    wide = of_shape((40, 7))
    return [
        of_shape(()),
        of_shape((3,)),
        of_shape((2, 3)),
        of_shape((0, 3)),
        of_shape((0,), (2, 3), (9,)),  # rank 0 has an empty batch
        of_shape((4, 5), (0, 5)),  # ranks 1 and 3 have
        of_shape((3,), (), (0, 3), (1, 2, 1, 3)),
        [ids.int() for ids in wide],
        [ids.to(torch.uint8) for ids in wide],
        [ids.t() for ids in wide],  # not contiguous
        [torch.full_like(ids, num_rows - 1) for ids in wide],  # all ranks want one row
        [torch.arange(num_rows) for _ in range(world_size)],
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_outputs_and_gradients_equal_nn_embedding(ranks: RankPool, world_size: int):
    cases = [
        Case(ids, rows, layout)
        for layout in LAYOUTS
        for rows in (V, 2)  # with 2 rows some of 3 ranks own none
        for ids in id_kinds(rows, world_size)
    ]
    everything = [torch.arange(V).repeat(2) for _ in range(world_size)]
    for layout in LAYOUTS:
        cases += [Case(everything, V, layout, padding_idx) for padding_idx in (0, 5, V - 1, -1, -V)]
        cases += [Case(everything, V, layout, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
        cases += [Case([torch.full((4,), 5)] * world_size, V, layout, 5)]  # nothing but padding
        # More or less of everything on each rank: an id occurs up to 3 times on one, and elsewhere not at all.
        uneven = [torch.arange(V - 40 * rank).repeat(rank) for rank in range(world_size)]
        for rows, batches in ((V, everything), (V, uneven), (2, [ids % 2 for ids in uneven])):
            cases += [Case(batches, rows, layout, 1, settings=settings) for settings in SETTINGS]
    results = ranks.run(look_up, cases, world_size=world_size)
    for case, result in zip(cases, zip(*results, strict=True), strict=True):
        compare(case, list(result))


def test_without_a_group_the_table_is_local():
    cases = [Case(ids, V, layout, padding_idx=3) for layout in LAYOUTS for ids in id_kinds(V, 1)]
    for case, result in zip(cases, look_up(None, cases), strict=True):
        compare(case, [result])
        assert len(result[0]) == V


def accumulate(group: dist.ProcessGroup, ids: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Gradients of two lookups: two backwards; one backward; and one plan for both, backward at once."""
    mine, results = ids[2 * dist.get_rank(group) :][:2], []
    for way in ("two backwards", "one backward", "one plan"):
        table = Case([], layout="round_robin").table(group)
        if way == "one plan":
            plan = table.plan(mine[0])
            before = table.statistics.collectives
            outputs = [table(mine[0], plan), table(mine[0], plan)]
            assert table.statistics.collectives == before + 4  # twice that it is the same plan, and the rows
        else:
            outputs = [table(mine[0]), table(mine[1])]
        losses = [(number * output.sin()).sum() for number, output in enumerate(outputs, start=1)]
        for loss in losses if way == "two backwards" else [losses[0] + losses[1]]:
            loss.backward()
        assert table.weight.grad is not None
        check_sparse(table.weight.grad)
        results.append((table.weight.detach(), table.weight.grad.to_dense()))
    return results


def test_gradients_accumulate_and_a_plan_serves_two_lookups(ranks: RankPool):
    ids = [random_ids(V, (60,), seed) for seed in range(6)]  # two batches for each of three ranks
    two, one, plan = zip(*ranks.run(accumulate, ids, world_size=3), strict=True)
    for results, batches in ((two, ids), (one, ids), (plan, [ids[i // 2 * 2] for i in range(6)])):
        shards, gradients = zip(*results, strict=True)
        weight = assemble(shards, "round_robin").requires_grad_()
        for number, batch in enumerate(batches):
            (((number % 2) + 1) * weight[batch].sin() / 3).sum().backward()
        torch.testing.assert_close(assemble(gradients, "round_robin"), weight.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize("comm_dtype", [torch.bfloat16, torch.float16])
def test_rows_and_gradients_are_rounded_on_the_way_alone(ranks: RankPool, comm_dtype: torch.dtype):
    ids = [random_ids(V, (rank * 20, 3), seed=rank) for rank in range(3)]
    for grad_reduction, scale in (("mean", 3), ("sum", 1)):
        case = Case(ids, settings={"comm_dtype": comm_dtype, "grad_reduction": grad_reduction})
        shards, outputs, gradients = zip(
            *(result for (result,) in ranks.run(look_up, [case], world_size=3)), strict=True
        )
        weight, total = case.reference().weight.detach(), torch.zeros(V, D).double()
        assert torch.equal(assemble(shards, case.layout), weight)
        for mine, output, gradient in zip(ids, outputs, case.output_gradients, strict=True):
            assert torch.equal(output, weight[mine].to(comm_dtype).double())
            of_rank = torch.zeros(V, D).double().index_add_(0, mine.flatten(), gradient.flatten(0, 1)).div_(scale)
            total += of_rank.to(comm_dtype)
        whole = assemble([gradient.to_dense() for gradient in gradients], case.layout)
        torch.testing.assert_close(whole, total, rtol=0, atol=1e-9)
