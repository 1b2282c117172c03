"""DistributedEmbeddingBag against nn.EmbeddingBag: any bags, modes, weights, ranks and transports."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dist_s2s.sharded import DistributedEmbeddingBag, lookup, lookup_bags
from dist_s2s.sharded.transport.collective import FIRST_BYTES
from tests.rank_pool import RankPool
from tests.sharded.collectives import counted_collectives, first_messages_of, poisoned_buffers
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids, random_rows

MODES = ("sum", "mean", "max")


@dataclass(frozen=True)
class Batch:
    """One rank's bags.

    Attributes:
        sizes: of the bags; with ``width`` their number alone counts.
        width: of bags of equal size, as ids of two dimensions; None for offsets.
        few: as many distinct ids occur, so that rows are fewer than sums; None for any.
        weights: "none", "fixed", or "trained".
        beyond: ids after the end of the last bag, if offsets say where that is.
    """

    sizes: tuple[int, ...]
    width: int | None
    few: int | None
    weights: str
    beyond: int
    seed: int

    def arguments(self, case: "Case") -> tuple[Tensor, Tensor | None, Tensor | None]:
        shape = (len(self.sizes), self.width) if self.width is not None else (sum(self.sizes),)
        offsets = None
        if self.width is None:
            starts = torch.tensor([0, *self.sizes]).cumsum(0)
            offsets = starts if case.include_last_offset else starts[:-1]
            shape = (shape[0] + self.beyond,) if case.include_last_offset else shape
        num_rows = case.num_rows if self.few is None else min(self.few, case.num_rows)
        ids, weights = random_ids(num_rows, shape, self.seed), None
        if case.mode == "sum" and self.weights != "none":
            weights = random_rows(shape, self.seed).requires_grad_(self.weights == "trained")
        return ids, offsets, weights


@dataclass(frozen=True)
class Case:
    """batches: by rank."""

    num_rows: int
    dim: int
    mode: str
    padding_idx: int | None
    include_last_offset: bool
    scale_grad_by_freq: bool
    max_norm: float | None
    grad_reduction: str
    layout: str
    deduplicate: bool
    batches: list[Batch]

    def build(self, group: dist.ProcessGroup, **options: Any) -> DistributedEmbeddingBag:
        own = {name: getattr(self, name) for name in ("mode", "padding_idx", "include_last_offset", "max_norm")}
        own |= {name: getattr(self, name) for name in ("layout", "grad_reduction", "deduplicate")}
        scale = self.scale_grad_by_freq and self.mode != "max"
        options = {"process_group": group, "seed": 0, "dtype": torch.float64, **options}
        return DistributedEmbeddingBag(self.num_rows, self.dim, scale_grad_by_freq=scale, **own, **options)


def cases(world_size: int) -> st.SearchStrategy[Case]:
    def with_rows(num_rows: int) -> st.SearchStrategy[Case]:
        return st.builds(
            Case,
            num_rows=st.just(num_rows),
            dim=st.integers(1, 5),
            mode=st.sampled_from(MODES),
            padding_idx=st.none() | st.integers(-num_rows, num_rows - 1),
            include_last_offset=st.booleans(),
            scale_grad_by_freq=st.booleans(),
            max_norm=st.none() | st.just(1.0),
            grad_reduction=st.sampled_from(["mean", "sum"]),
            layout=st.sampled_from(LAYOUTS),
            deduplicate=st.booleans(),
            batches=st.lists(batches, min_size=world_size, max_size=world_size),
        )

    batches = st.builds(
        Batch,
        sizes=st.lists(st.integers(0, 7), max_size=6).map(tuple),
        width=st.none() | st.integers(0, 5),
        few=st.none() | st.just(2),
        weights=st.sampled_from(["none", "fixed", "trained"]),
        beyond=st.integers(0, 3),
        seed=st.integers(0, 10**6),
    )
    return (st.integers(1, 3) | st.just(131)).flatmap(with_rows)


def loss_of(pooled: Tensor) -> Tensor:
    return (pooled.double() * random_rows(tuple(pooled.shape), seed=0)).sum() + pooled.double().square().sum()


def pool(group: dist.ProcessGroup, case: Case, room: int, options: dict[str, Any]) -> tuple[Tensor | None, ...]:
    """The shard before, the pooled bags, the shard after, its gradient, and that of the weights."""
    bag = case.build(group, **options)
    ids, offsets, weights = case.batches[dist.get_rank(group)].arguments(case)
    before = bag.weight.detach().clone()
    given_weights = weights
    if weights is not None:
        weights = weights.detach().to(bag.weight.dtype).requires_grad_(weights.requires_grad)
        given_weights = weights.clone() if not weights.requires_grad else weights
    with poisoned_buffers(), first_messages_of(room):
        pooled = bag(ids, offsets, given_weights)
        ids.zero_()  # a caller may reuse them
        if given_weights is not weights:
            given_weights.zero_()
        loss_of(pooled).backward()
    assert bag.weight.grad.is_coalesced()
    own = None if weights is None else weights.grad
    return before, pooled.detach(), bag.weight.detach(), bag.weight.grad.to_dense(), own


def check(case: Case, results: list[tuple[Tensor, ...]], tolerance: float) -> None:
    before, pooled, after, gradients, of_weights = (list(column) for column in zip(*results, strict=True))
    whole = assemble(before, case.layout).double()
    reference = nn.EmbeddingBag(
        case.num_rows,
        case.dim,
        case.max_norm,
        scale_grad_by_freq=False,
        mode=case.mode,
        _weight=whole,
        include_last_offset=case.include_last_offset,
        padding_idx=case.padding_idx,
    )
    scale = len(results) if case.grad_reduction == "mean" else 1
    named = torch.zeros(case.num_rows)
    for batch, mine, gradient in zip(case.batches, pooled, of_weights, strict=True):
        ids, offsets, weights = batch.arguments(case)
        assert mine.shape == (len(batch.sizes), case.dim)
        if not batch.sizes or ids.numel() == 0:  # of which torch refuses some, and some are a segmentation fault
            assert not mine.any()
            continue
        if case.include_last_offset and offsets is not None:  # else torch counts what follows into the last mean
            ids = ids[: offsets[-1]]
        expected = reference(ids, offsets, None if weights is None else weights[: len(ids)])
        torch.testing.assert_close(mine.double(), expected.detach(), rtol=tolerance, atol=tolerance)
        (loss_of(expected) / scale).backward()
        named.index_add_(0, ids.flatten(), torch.ones(ids.numel()))
        if gradient is not None:
            torch.testing.assert_close(gradient.double(), weights.grad * scale, rtol=tolerance, atol=10 * tolerance)
    gradient = reference.weight.grad
    if gradient is None:
        gradient = torch.zeros_like(whole)
    if case.scale_grad_by_freq and case.mode != "max":
        gradient = gradient / named.clamp(min=1)[:, None]
    torch.testing.assert_close(assemble(gradients, case.layout).double(), gradient, rtol=tolerance, atol=10 * tolerance)
    if case.padding_idx is None:  # torch scales the row of padding ids, which count for nothing here
        torch.testing.assert_close(assemble(after, case.layout).double(), reference.weight.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@settings(max_examples=40)
@given(data=st.data())
def test_bags_are_those_of_nn_embedding_bag(ranks: RankPool, world_size: int, data: st.DataObject):
    case = data.draw(cases(world_size))
    room = data.draw(st.sampled_from([32, 256, FIRST_BYTES]))
    options = {"transport": data.draw(st.sampled_from(TRANSPORTS))}
    check(case, ranks.run(pool, case, room, options, world_size=world_size), 1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bags_that_travel_in_bfloat16(ranks: RankPool, transport: str, mode: str):
    batches = [Batch((5, 0, 9, 1), None, None, "fixed", 0, seed) for seed in range(3)]
    case = Case(131, 4, mode, 3, False, False, None, "mean", "round_robin", True, batches)
    options = {"transport": transport, "dtype": torch.float32, "comm_dtype": torch.bfloat16}
    check(case, ranks.run(pool, case, FIRST_BYTES, options, world_size=3), 2.0**-6)


SIZES = ((131, 5), (2, 3), (57, 1))  # of three tables; the second has fewer rows than there are ranks


def inputs_of(rank: int) -> list[tuple[Tensor, ...]]:
    ids = [random_ids(size[0], (12 * (rank + t) % 36,), seed=10 * rank + t) for t, size in enumerate(SIZES)]
    return [(ids[0], torch.arange(0, len(ids[0]), 4)), (ids[1].view(-1, 3),), (ids[2], torch.arange(0, len(ids[2]), 6))]


def together_and_apart(
    group: dist.ProcessGroup, transport: str, room: int
) -> tuple[list[list[Tensor]], list[dict[str, int]]]:
    """Bags and gradients of three tables, looked up together and alone; the collectives of a lookup and a backward."""
    results, counts = [], []
    for together in (True, False):
        tables = [
            DistributedEmbeddingBag(*size, mode=mode, seed=t, process_group=group, transport=transport)
            for t, (size, mode) in enumerate(zip(SIZES, MODES, strict=True))
        ]
        inputs = inputs_of(dist.get_rank(group))
        with counted_collectives() as forward, first_messages_of(room):
            if together:
                pooled = lookup_bags(tables, inputs)
            else:
                pooled = [table(*mine) for table, mine in zip(tables, inputs, strict=True)]
        with counted_collectives() as backward:
            torch.stack([loss_of(block) for block in pooled]).sum().backward()
        counts += [dict(forward["main"]), dict(backward["main"])]
        results.append([*(block.detach() for block in pooled), *(table.weight.grad.to_dense() for table in tables)])
    return results, counts[:2]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bags_of_several_tables_share_an_exchange(ranks: RankPool, transport: str):
    name = {"collective": "all_to_all_single", "shared_memory": "meet"}[transport]
    for (together, apart), counts in ranks.run(together_and_apart, transport, FIRST_BYTES, world_size=4):
        assert counts == [{name: 2}, {name: 1}]  # as many as a lookup of a single table takes
        for mine, alone in zip(together, apart, strict=True):
            assert torch.equal(mine, alone)


def bytes_of_a_lookup(group: dist.ProcessGroup, ids: Tensor, mode: str) -> int:
    bag = DistributedEmbeddingBag(1000, 64, mode=mode, process_group=group, transport="collective")
    bag.statistics.reset()
    bag(ids)
    return bag.statistics.bytes_sent


def test_what_is_fewer_travels_sums_or_rows(ranks: RankPool):
    """Rows of 256 bytes: 1,000 ids in 10 bags need 20 sums; 10 distinct ids in 100 bags no more than 10 rows."""
    large, hot = torch.arange(1000).view(10, 100), torch.arange(10).repeat(100).view(100, 10)
    for mode, ids, most in (("sum", large, 20), ("mean", hot, 20), ("max", large, 1000)):
        sent = ranks.run(bytes_of_a_lookup, ids, mode, world_size=2)
        assert 0.5 * most * 256 < max(sent) < most * 256 + 12 * ids.numel() + 2048


def train(group: dist.ProcessGroup, transport: str) -> list[tuple[Tensor, Tensor | None, bool]]:
    """Gradients of the weights, on rank 1 alone, of a table that is trained and of one that is frozen."""
    results = []
    for frozen in (False, True):
        bag = DistributedEmbeddingBag(131, 4, mode="sum", process_group=group, transport=transport, seed=0)
        bag.weight.requires_grad_(not frozen)
        ids = random_ids(131, (3, 5), seed=dist.get_rank(group))
        weights = torch.ones(3, 5).requires_grad_(dist.get_rank(group) == 1)
        pooled = bag(ids, per_sample_weights=weights)
        if pooled.requires_grad:
            pooled.square().sum().backward()
        results.append((pooled.detach(), weights.grad, bag.weight.grad is not None))
    return results


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_weights_may_be_trained_on_some_ranks_alone(ranks: RankPool, transport: str):
    whole = DistributedEmbeddingBag(131, 4, mode="sum", seed=0).to_embedding_bag()
    for rank, (trained, frozen) in enumerate(ranks.run(train, transport, world_size=2)):
        ids, weights = random_ids(131, (3, 5), seed=rank), torch.ones(3, 5, requires_grad=True)
        expected = whole(ids, per_sample_weights=weights)
        expected.square().sum().backward()
        for pooled, gradient, has_gradient in (trained, frozen):
            torch.testing.assert_close(pooled, expected.detach())
            assert has_gradient == (pooled is trained[0])
            assert (gradient is not None) == (rank == 1)
            if gradient is not None:
                torch.testing.assert_close(gradient, weights.grad)


def convert(group: dist.ProcessGroup) -> tuple[nn.EmbeddingBag, Tensor, Tensor, Tensor]:
    """A whole bag table there and back, and its pooled rows, its rows, and those after a state_dict was loaded."""
    torch.manual_seed(5)
    whole = nn.EmbeddingBag(131, 4, mode="max", include_last_offset=True, padding_idx=7, dtype=torch.float64)
    bag = DistributedEmbeddingBag.from_embedding_bag(whole, process_group=group)
    loaded = DistributedEmbeddingBag(131, 4, process_group=group, padding_idx=7, dtype=torch.float64)
    loaded.load_state_dict(whole.state_dict())
    ids, offsets = torch.tensor([5, 7, 130, 2]), torch.tensor([0, 3, 4])
    return bag.to_embedding_bag(), bag(ids, offsets).detach(), lookup([bag], [ids])[0].detach(), loaded(ids[None])


def test_conversion_keeps_rows_and_settings(ranks: RankPool):
    for whole, pooled, rows, loaded in ranks.run(convert, world_size=3):
        assert (whole.mode, whole.include_last_offset, whole.padding_idx) == ("max", True, 7)
        ids, offsets = torch.tensor([5, 7, 130, 2]), torch.tensor([0, 3, 4])
        assert torch.equal(pooled, whole(ids, offsets))
        assert torch.equal(rows, whole.weight[ids])
        torch.testing.assert_close(loaded, whole.weight[ids[[0, 2, 3]]].mean(0, keepdim=True))


def test_a_table_prints_its_mode():
    bag = DistributedEmbeddingBag(10, 2, mode="sum", seed=0)
    assert repr(bag).endswith("holds 10 rows, mode=sum)")


def pool_in_replicas(group: dist.ProcessGroup, grid: list[list[int]], mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """The shard, the pooled bags, and the gradient."""
    mesh = DeviceMesh("cpu", grid, mesh_dim_names=("replicate", "shard"))
    bag = DistributedEmbeddingBag(131, 4, mode=mode, device_mesh=mesh, seed=0, dtype=torch.float64)
    pooled = bag(random_ids(131, (3, 4), seed=dist.get_rank(group)))
    loss_of(pooled).backward()
    return bag.weight.detach(), pooled.detach(), bag.weight.grad.to_dense()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", [[[0, 1], [2, 3]], [[0], [1], [2], [3]]])
def test_replicas_have_the_same_gradients_of_bags(ranks: RankPool, grid: list[list[int]], mode: str):
    results = ranks.run(pool_in_replicas, grid, mode)
    reference = nn.EmbeddingBag(131, 4, mode=mode, _weight=torch.cat([results[rank][0] for rank in grid[0]]))
    for rank, (_, pooled, _) in enumerate(results):
        expected = reference(random_ids(131, (3, 4), seed=rank))
        torch.testing.assert_close(pooled, expected.detach(), rtol=0, atol=1e-9)
        (loss_of(expected) / 4).backward()
    for row in grid:
        gradient = torch.cat([results[rank][2] for rank in row])
        torch.testing.assert_close(gradient, reference.weight.grad, rtol=0, atol=1e-9)
        assert torch.equal(gradient, torch.cat([results[rank][2] for rank in grid[0]]))
