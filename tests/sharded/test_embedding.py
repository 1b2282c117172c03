"""DistributedEmbedding against nn.Embedding with the same whole table and the batches of all ranks."""

from dataclasses import dataclass, field

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
    """ids: by rank."""

    ids: list[Tensor]
    num_embeddings: int = V
    layout: str = "contiguous"
    padding_idx: int | None = None
    grad_reduction: str = "mean"
    dtype: torch.dtype = torch.float64
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
            grad_reduction=self.grad_reduction,
            dtype=self.dtype,
            process_group=group,
            seed=7,
        )


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
    reference = nn.Embedding(case.num_embeddings, D, case.padding_idx, _weight=assemble(shards, case.layout))
    scale = len(results) if case.grad_reduction == "mean" else 1
    for ids, output, output_gradient in zip(case.ids, outputs, case.output_gradients, strict=True):
        expected = reference(ids.long())
        assert output.dtype == case.dtype
        assert output.shape == (*ids.shape, D)
        assert torch.equal(output, expected)
        expected.backward(output_gradient / scale)
    whole = assemble([gradient.to_dense() for gradient in gradients], case.layout)
    tolerance = 1e-9 if case.dtype == torch.float64 else 1e-4
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
        cases += [Case(everything, V, layout, 5, "sum"), Case(everything, V, layout, dtype=torch.float32)]
        cases += [Case([torch.full((4,), 5)] * world_size, V, layout, 5)]  # nothing but padding
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
            assert table.statistics.collectives == before + 2  # the rows alone
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


MISMATCHES = {
    "num_embeddings": ({"num_embeddings": V}, {"num_embeddings": V + 1}),
    "embedding_dim": ({"embedding_dim": D}, {"embedding_dim": D + 1}),
    "dtype": ({"dtype": torch.float32}, {"dtype": torch.float64}),
    "layout": ({"layout": "contiguous"}, {"layout": "round_robin"}),
    "padding_idx": ({"padding_idx": None}, {"padding_idx": 0}),
    "grad_reduction": ({"grad_reduction": "mean"}, {"grad_reduction": "sum"}),
}


def build_differently(group: dist.ProcessGroup) -> list[str]:
    """The message for each mismatch; a good table follows, so the group must be in order again."""
    messages = []
    for usual, other in MISMATCHES.values():
        settings = {"num_embeddings": V, "embedding_dim": D, **(other if dist.get_rank(group) == 2 else usual)}
        with pytest.raises(ValueError, match="must be the same on every rank") as error:
            DistributedEmbedding(**settings, process_group=group)
        messages.append(str(error.value))
        DistributedEmbedding(V, D, process_group=group)(torch.tensor([dist.get_rank(group)]))
    return messages


def test_ranks_that_build_different_tables_all_get_the_same_error(ranks: RankPool):
    expected = [
        f"{name} must be the same on every rank, but is {usual[name]} on rank 0 and {other[name]} on rank 2"
        for name, (usual, other) in MISMATCHES.items()
    ]
    assert ranks.run(build_differently) == [expected] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding_idx": V}, f"padding_idx {V} is outside [-{V}, {V})"),
        ({"padding_idx": -V - 1}, f"padding_idx {-V - 1} is outside [-{V}, {V})"),
        ({"layout": "striped"}, "layout must be one of contiguous, round_robin, but is 'striped'"),
        ({"grad_reduction": "max"}, "grad_reduction must be mean or sum, but is 'max'"),
        ({"dtype": torch.int64}, "dtype must be one of torch.float32, torch.float64, but is torch.int64"),
        ({"num_embeddings": 0}, f"num_embeddings and embedding_dim must be positive, but are 0 and {D}"),
        ({"embedding_dim": 0}, f"num_embeddings and embedding_dim must be positive, but are {V} and 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=r"must be|outside") as error:
        DistributedEmbedding(**{"num_embeddings": V, "embedding_dim": D, **settings})
    assert str(error.value) == message


def use_default_group(group: dist.ProcessGroup) -> tuple[bool, Tensor, str]:
    table = DistributedEmbedding(V, D, seed=7)
    own = table.process_group
    output = table(torch.arange(V)).detach()
    dist.destroy_process_group(own)
    return own not in (None, group, dist.group.WORLD), output, repr(table)


def test_by_default_a_table_has_a_group_of_its_own(ranks: RankPool):
    expected = DistributedEmbedding(V, D, seed=7).weight
    for rank, (is_own, output, text) in enumerate(ranks.run(use_default_group)):
        assert is_own
        assert torch.equal(output, expected)
        rows = 33 if rank < 3 else 32
        assert text == f"DistributedEmbedding({V}, {D}, layout=contiguous, rank {rank} of 4 holds {rows} rows)"
