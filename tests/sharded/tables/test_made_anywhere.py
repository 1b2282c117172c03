"""Tables that are made on the meta device, pickled, copied, or called with other weights."""

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from dist_s2s.sharded import DistributedEmbedding, SparseSGD, lookup
from dist_s2s.sharded.tables.beginning import prepare
from dist_s2s.sharded.transport.group import ExchangeMismatchError, RankGroup
from dist_s2s.sharded.transport.making import find_local_group
from dist_s2s.sharded.transport.protocol import LocalTransport
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS, random_ids

V, D = 131, 5


def new_table(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(V, D, process_group=group, **{"seed": 1, "dtype": torch.float64, **settings})


def on_meta(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    return new_table(group, device="meta", **settings)


def in_a_context(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    with torch.device("meta"):
        return new_table(group, **settings)


def skipping(group: dist.ProcessGroup | None, **settings: Any) -> DistributedEmbedding:
    return nn.utils.skip_init(DistributedEmbedding, V, D, process_group=group, seed=1, dtype=torch.float64, **settings)


def train(table: DistributedEmbedding, ids: Tensor) -> Tensor:
    """Rows before, the gradient after two backwards, and rows after a step."""
    optimizer = SparseSGD([table.weight], lr=1.0)
    rows = table(ids)
    rows.square().sum().backward()
    table(ids).sum().backward()
    assert table.weight.grad.is_coalesced()
    optimizer.step()
    return torch.cat([rows.detach(), table(ids)])


def materialize(group: dist.ProcessGroup | None, transport: str, seed: int | None) -> None:
    ids = random_ids(V, (7,), seed=0 if group is None else dist.get_rank(group))
    settings = {"transport": transport, "seed": seed}
    torch.manual_seed(5)
    expected = new_table(group, **settings)
    for make in (on_meta, in_a_context):
        torch.manual_seed(5)  # of which the seed is drawn if there is none
        table = make(group, **settings)
        assert table.weight.is_meta
        with pytest.raises(RuntimeError, match=r"is on the meta device, and has no rows; call to_empty"):
            table(ids)
        table.to_empty(device="cpu")
        table.reset_parameters()
        assert torch.equal(table.weight, expected.weight)
        assert torch.equal(train(table, ids), train(copy.deepcopy(expected), ids))
        assert table.is_in_place == expected.is_in_place
        assert table.extra_repr() == expected.extra_repr()


@pytest.mark.parametrize("seed", [1, None])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_table_leaves_the_meta_device_as_it_would_have_been_built(ranks: RankPool, transport: str, seed: int | None):
    ranks.run(materialize, transport, seed, world_size=3)


def test_a_table_of_one_process_has_its_rows_where_its_weight_is():
    table, ids = new_table(None), random_ids(V, (7,), seed=0)
    expected = table(ids)
    table.group = find_local_group(torch.device("cuda"))  # as one that was built there, and then moved
    table.to("cpu")
    assert table.group is new_table(None).group
    assert torch.equal(table(ids), expected)


def test_a_table_that_has_left_the_device_of_its_ranks_is_refused():
    table, transport = new_table(None), LocalTransport()
    transport.name = "collective"
    table.group = RankGroup(transport, torch.device("cuda"))
    _, error = prepare([table], [random_ids(V, (7,), seed=0)])
    assert str(error) == (
        f"table {table.number} (131 x 5) is on cpu, but its ranks exchange rows on cuda, where it was built; build it "
        "where it is to be, with device=..."
    )


def test_a_table_of_one_process_leaves_the_meta_device_too():
    materialize(None, "auto", 1)


def skip(group: dist.ProcessGroup, transport: str) -> None:
    table, expected = skipping(group, transport=transport), new_table(group, transport=transport)
    with torch.no_grad():
        table.weight.copy_(expected.weight)
    ids = random_ids(V, (7,), seed=dist.get_rank(group))
    assert torch.equal(train(table, ids), train(expected, ids))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_initial_rows_can_be_skipped(ranks: RankPool, transport: str):
    ranks.run(skip, transport, world_size=2)


def test_a_table_of_one_process_can_be_pickled():
    table, ids = new_table(None, padding_idx=3, max_norm=1.5), random_ids(V, (7,), seed=0)
    table(ids).sum().backward()
    model = nn.Sequential(table, nn.Linear(D, 2, dtype=torch.float64))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for loaded in (pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert loaded[0].extra_repr() == table.extra_repr()
        assert torch.equal(loaded[0].weight, table.weight)
        assert list(loaded.state_dict()) == list(model.state_dict())
        assert len(list(loaded.parameters())) == 3
        loaded.zero_grad()
        assert torch.equal(train(loaded[0], ids), train(copy.deepcopy(table), ids))


def pickle_a_shard(group: dist.ProcessGroup) -> None:
    model = nn.Sequential(new_table(group))
    rank = dist.get_rank(group)
    for save in (pickle.dumps, lambda model: torch.save(model, io.BytesIO())):
        with pytest.raises(TypeError, match=f"^rank {rank} of 2 holds only its own rows of this table, which can't be"):
            save(model)


def test_a_shard_is_not_pickled(ranks: RankPool):
    ranks.run(pickle_a_shard, world_size=2)


def call_with_other_weights(group: dist.ProcessGroup, transport: str) -> None:
    table, rank = new_table(group, transport=transport), dist.get_rank(group)
    whole, ids = table.to_embedding().weight.detach(), random_ids(V, (7,), seed=rank)
    in_place = table.is_in_place
    model = nn.Sequential(table)
    for _ in range(2):
        others = {"0.weight": (table.weight.detach() + 0.5).requires_grad_()}
        rows = functional_call(model, others, (ids,))
        assert torch.equal(rows, whole[ids] + 0.5)
        rows.sum().backward()
        assert table.weight.grad is None
        counts = sum(torch.bincount(random_ids(V, (7,), seed=other), minlength=V) for other in range(2)) / 2
        assert torch.equal(others["0.weight"].grad.to_dense()[:, 0], counts[table.partition.ids(rank)].double())
        before = table.statistics.collectives
        assert torch.equal(table(ids), whole[ids])
        assert table.statistics.collectives == before + 2
        assert table.is_in_place == in_place
        assert not table.has_moved()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_functional_call_reads_other_weights_and_leaves_the_rows_where_they_are(ranks: RankPool, transport: str):
    ranks.run(call_with_other_weights, transport, world_size=2)


def differentiate(group: dist.ProcessGroup | None) -> None:
    table, ids = new_table(group), torch.arange(3)

    def loss(weight: Tensor) -> Tensor:
        return functional_call(table, {"weight": weight}, (ids,)).sum()

    with pytest.raises(RuntimeError, match=r"^torch\.func's transforms .* can't pass through a table; call back"):
        torch.func.grad(loss)(table.weight.detach())
    rows = table(ids)
    rows.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        rows.sum().backward()
    (once,) = torch.autograd.grad(table(ids).pow(3).sum(), table.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        once.to_dense().sum().backward()
    assert torch.equal(table(ids), table.to_embedding()(ids))


def test_what_autograd_cannot_do_is_refused(ranks: RankPool):
    ranks.run(differentiate, world_size=2)
    differentiate(None)


def test_a_table_of_one_process_can_be_exported():
    model = nn.Sequential(new_table(None, padding_idx=3), nn.Linear(D, 2, dtype=torch.float64))
    ids = random_ids(V, (7,), seed=0)
    assert torch.equal(torch.export.export(model, (ids,)).module()(ids), model(ids))
    with pytest.raises(ValueError, match=r"table \d+ \(131 x 5\) has max_norm"):
        torch.export.export(nn.Sequential(new_table(None, max_norm=1.0)), (ids,))


def export(group: dist.ProcessGroup) -> None:
    with pytest.raises(RuntimeError, match=r"table 0 \(131 x 5\) is divided among 2 ranks, and cannot be exported"):
        torch.export.export(nn.Sequential(new_table(group)), (torch.arange(3),))
    with pytest.raises(Exception, match="ranks exchange rows in it, which is no part of a graph; compile "):
        torch.compile(nn.Sequential(new_table(group)), fullgraph=True, backend="eager")(torch.arange(3))


def test_a_shard_is_not_exported(ranks: RankPool):
    ranks.run(export, world_size=2, timeout=110)


def replace(group: dist.ProcessGroup, transport: str) -> None:
    table, ids = new_table(group, transport=transport), random_ids(V, (7,), seed=dist.get_rank(group))
    table.weight = nn.Parameter(table.weight.detach() * 2)
    expected = new_table(group, transport=transport)
    with torch.no_grad():
        expected.weight.mul_(2)
    assert torch.equal(train(table, ids), train(expected, ids))
    assert table.is_in_place == expected.is_in_place


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_new_parameter_gets_what_the_old_one_had(ranks: RankPool, transport: str):
    ranks.run(replace, transport, world_size=2)


def take_one_for_the_other(group: dist.ProcessGroup, transport: str) -> str:
    table = new_table(group, transport=transport)
    clone = copy.deepcopy(table)
    ids = torch.arange(3)
    if dist.get_rank(group) == 0:
        copy.deepcopy(table)  # which changes nothing for the others
    assert torch.equal(*lookup([table, clone], [ids, ids]))
    with pytest.raises(ExchangeMismatchError) as caught:
        (table if dist.get_rank(group) == 0 else clone)(ids)
    return str(caught.value)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_table_is_not_taken_for_its_copy(ranks: RankPool, transport: str):
    texts = ranks.run(take_one_for_the_other, transport, world_size=2)
    assert len(set(texts)) == 1
    assert re.search(r"rank 0 is in .* of table 0 \(131 x 5, .*, and rank 1 in .* of a copy of table 0 \(131", texts[0])


def swap(group: dist.ProcessGroup) -> None:
    table, ids = new_table(group, dtype=torch.float32), random_ids(V, (7,), seed=dist.get_rank(group))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        table.to(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    expected = new_table(group, dtype=torch.float32).to(torch.float64)
    assert type(table.weight) is type(expected.weight)
    assert torch.equal(train(table, ids), train(expected, ids))


def test_what_is_attached_to_a_weight_survives_a_swap(ranks: RankPool):
    ranks.run(swap, world_size=2)
