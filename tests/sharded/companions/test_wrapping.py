"""Models with tables inside of wrappers that synchronize parameters: right if they're excluded, refused if not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from dist_s2s.sharded import DistributedEmbedding, exclude_sharded, lookup
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS, assemble, random_ids, random_rows

V, D, H, STEPS = 132, 5, 3, 3  # as many rows on each of 2 and 3 ranks: DDP itself refuses shards of unequal size
Wrap = Callable[[nn.Module, dist.ProcessGroup], nn.Module]


class Model(nn.Module):
    """Two tables, a deeper one frozen, and a layer."""

    def __init__(self, tables: list[nn.Module]) -> None:
        super().__init__()
        self.table, inner = tables
        self.inner = nn.ModuleDict({"frozen": inner})
        torch.manual_seed(2)
        self.rest = nn.Linear(D, H, dtype=torch.float64)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.table(ids) + self.inner["frozen"](ids)
        return self.rest(rows.tanh()).tanh().square().mean()


def new_model(group: dist.ProcessGroup, transport: str) -> Model:
    tables = [
        DistributedEmbedding(V, D, process_group=group, seed=seed, transport=transport, dtype=torch.float64)
        for seed in (1, 2)
    ]
    tables[1].requires_grad_(False)
    return Model(tables)


def whole_model() -> Model:
    tables = [DistributedEmbedding(V, D, seed=seed, dtype=torch.float64).to_embedding() for seed in (1, 2)]
    for table in tables:
        table.sparse = False
    tables[1].requires_grad_(False)
    return Model(tables)


def batches(world_size: int) -> list[list[Tensor]]:
    """Ids by step and rank."""
    return [[random_ids(V, (6, 3), 10 * step + rank) for rank in range(world_size)] for step in range(STEPS)]


def train(model: nn.Module, parameters: Any, batches: list[list[Tensor]], micro_batches: int) -> None:
    """Each step has the mean gradient over its batches; ``micro_batches`` of them are this process's."""
    optimizer = SGD(parameters, lr=1.0)
    for ids in batches:
        optimizer.zero_grad()
        for mine in ids:
            (model(mine) / micro_batches).backward()
        optimizer.step()


def in_ddp(model: nn.Module, group: dist.ProcessGroup, **settings: Any) -> nn.Module:
    exclude_sharded(model)
    return DistributedDataParallel(model, process_group=group, **settings)


def in_static_ddp(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    return in_ddp(model, group, static_graph=True)


def in_searching_ddp(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    return in_ddp(model, group, find_unused_parameters=True)


def in_ddp_with_views(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    return in_ddp(model, group, gradient_as_bucket_view=True)


def in_ddp_compiled(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    return torch.compile(in_ddp(model, group), backend="aot_eager")


def in_fsdp(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    return fully_shard(model, mesh=DeviceMesh.from_group(group, "cpu"), ignored_params=exclude_sharded(model))


class Recomputed(nn.Module):
    """A model whose lookups run again in backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return checkpoint(self.model, ids, use_reentrant=False)


def in_ddp_with_checkpoints(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    return in_ddp(Recomputed(model), group)


WRAPS = (in_ddp, in_static_ddp, in_searching_ddp, in_ddp_with_views, in_ddp_compiled, in_ddp_with_checkpoints, in_fsdp)


def train_wrapped(
    group: dist.ProcessGroup, wrap: Wrap, transport: str, steps: list[list[Tensor]]
) -> tuple[list[Tensor], Tensor]:
    """The shards of both tables, and the layer's weight."""
    model = new_model(group, transport)
    wrapped = wrap(model, group)
    train(wrapped, model.parameters(), [[ids[dist.get_rank(group)]] for ids in steps], 1)
    weight = model.rest.weight
    dense = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return [model.table.weight.detach(), model.inner["frozen"].weight.detach()], dense.detach()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_an_excluded_table_trains_as_the_unsharded_model(ranks: RankPool, wrap: Wrap, transport: str):
    steps, reference = batches(2), whole_model()
    train(reference, reference.parameters(), steps, 2)
    tables, weights = zip(*ranks.run(train_wrapped, wrap, transport, steps, world_size=2, timeout=110), strict=True)
    close = {"rtol": 0, "atol": 1e-9}
    for shards, expected in zip(zip(*tables, strict=True), (reference.table, reference.inner["frozen"]), strict=True):
        torch.testing.assert_close(assemble(shards, "contiguous"), expected.weight.detach(), **close)
    for weight in weights:
        torch.testing.assert_close(weight, reference.rest.weight.detach(), **close)
    assert (reference.table.weight - whole_model().table.weight).abs().max() > 1e-3


def refused(model: nn.Module, ids: Tensor) -> str:
    with pytest.raises(RuntimeError) as caught:
        model(ids)
    return str(caught.value)


def wrap_and_forget(group: dist.ProcessGroup, transport: str) -> list[str]:
    """What lookups say inside of DDP, beside it afterwards, and of tables of zeros, which a broadcast leaves alone."""
    ids, texts = torch.arange(4), []
    model = new_model(group, transport)
    wrapped = DistributedDataParallel(model, process_group=group)
    texts += [refused(wrapped, ids), refused(model, ids), refused(model.inner["frozen"], ids)]
    model = new_model(group, transport)
    for table in (model.table, model.inner["frozen"]):
        nn.init.zeros_(table.weight)
    wrapped = DistributedDataParallel(model, process_group=group)
    texts.append(refused(wrapped, ids))
    assert not model(ids).isnan()  # rows of zeros are the same everywhere
    return texts


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ddp_around_a_table_is_refused_at_the_next_lookup(ranks: RankPool, transport: str):
    texts, *others = ranks.run(wrap_and_forget, transport, world_size=2)
    assert others == [texts]
    inside, beside, frozen, zeros = texts
    assert inside.startswith(f"table.weight is a shard of {V} x {D} rows, but DistributedDataParallel takes it for a ")
    assert zeros == inside
    assert beside.startswith(f"the shards of table 0 ({V} x {D}) on ranks 0 and 1 hold the same numbers, although they")
    assert frozen.startswith(f"the shards of table 1 ({V} x {D}) on ranks 0 and 1 hold the same numbers")
    for text in texts:
        assert "exclude_sharded(model) before DistributedDataParallel(model)" in text


def synchronize(group: dist.ProcessGroup, transport: str, how: str, what: str) -> None:
    model, rank = new_model(group, transport), dist.get_rank(group)
    ids = torch.arange(rank + 3)
    model(ids).backward()
    parameters = [model.table.weight] if what == "one table" else list(model.parameters())
    for parameter in parameters:
        if how == "broadcast":
            dist.broadcast(parameter.data, dist.get_global_rank(group, 1), group=group)
        else:
            dist.all_reduce(parameter.data, group=group)
            parameter.data.div_(dist.get_world_size(group))
    tables = [model.inner["frozen"], model.table]
    before = model.table.weight.detach().clone()
    for use in (lambda: lookup(tables, [ids, ids]), lambda: model.table.plan(ids)):
        if transport == "collective" or "plan" not in use.__code__.co_names:
            with pytest.raises(RuntimeError, match=r"the shards of table . \(132 x 5\) on ranks 0 and 1 hold the same"):
                use()
    assert torch.equal(model.table.weight, before)
    model.table.reset_parameters()
    model.inner["frozen"].reset_parameters()
    assert torch.equal(lookup(tables, [ids, ids])[1], model.table.to_embedding()(ids))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("how", "what"), [("broadcast", "one table"), ("broadcast", "everything"), ("mean", "one table")]
)
def test_parameters_synchronized_by_hand_are_noticed(ranks: RankPool, transport: str, how: str, what: str):
    ranks.run(synchronize, transport, how, what, world_size=3)


def periodic(group: dist.ProcessGroup, transport: str) -> None:
    """Shards whose first rows are equal, but not all, are what the user wanted."""
    whole = torch.zeros(V, D)
    whole[::33] = random_rows((D,), seed=1).float()
    whole[-1] = 7.0
    table = DistributedEmbedding.from_pretrained(whole, process_group=group, transport=transport)
    assert torch.equal(table(torch.arange(V)), whole)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_shards_that_only_seem_equal_are_used(ranks: RankPool, transport: str):
    ranks.run(periodic, transport, world_size=2)


def shard_again(group: dist.ProcessGroup) -> str:
    model = new_model(group, "auto")
    with pytest.raises(TypeError) as caught:
        fully_shard(model, mesh=DeviceMesh.from_group(group, "cpu"))
    return str(caught.value)


def test_fsdp_around_a_table_is_refused_at_once(ranks: RankPool):
    texts = ranks.run(shard_again, world_size=2)
    assert len(set(texts)) == 1
    assert texts[0].startswith("a table's weight was to be replaced by a DTensor")
    assert "fully_shard(model, ignored_params=exclude_sharded(model))" in texts[0]


def test_what_is_excluded_is_named_for_every_module_around_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(DistributedEmbedding(4, 2)))
    assert exclude_sharded(model) == set()  # on a single process it's an embedding like any other
    assert not hasattr(model, "_ddp_params_and_buffers_to_ignore")


def names_excluded(group: dist.ProcessGroup) -> None:
    model = new_model(group, "auto")
    outer = nn.Sequential(model)
    model._ddp_params_and_buffers_to_ignore = ["rest.bias"]
    for _ in range(2):
        assert exclude_sharded(outer) == {model.table.weight, model.inner["frozen"].weight}
    names = ["inner.frozen.weight", "rest.bias", "table.weight"]
    assert model._ddp_params_and_buffers_to_ignore == names
    assert outer._ddp_params_and_buffers_to_ignore == ["0.inner.frozen.weight", "0.table.weight"]
    for table, name in ((model.table, "0.table"), (model.inner["frozen"], "0.inner.frozen")):
        with pytest.raises(
            IndexError, match=rf"^table \"{name}\" \(132 x 5\): id 132 at position .* on rank 1 is outside"
        ):
            table(torch.tensor([0, 132 if table.rank == 1 else 1]))
    alone, _ = dist.new_subgroups_by_enumeration([[0], [1]])
    assert exclude_sharded(nn.Sequential(DistributedEmbedding(4, 2, process_group=alone))) == set()


def test_names_add_to_those_that_are_excluded_already(ranks: RankPool):
    ranks.run(names_excluded, world_size=2)
