"""The library on the device of `pytest --device cuda` (by default the CPU), against unsharded modules on the CPU.

One process and no pool. A table without a group computes everything but exchanges nothing; one with a group of one rank
sends its ids, rows and gradients through nccl, or gloo on the CPU, or there through a mailbox.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, Optimizer

from dist_s2s.sharded import DistributedEmbedding, Lookahead, RowWiseAdagrad, clip_grad_norm_, lookup, make_plan, optim
from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.output.sampled_softmax import SampledSoftmaxLoss
from dist_s2s.sharded.tables.store import RowStore
from dist_s2s.sharded.transport.group import RankGroup
from dist_s2s.sharded.transport.making import _make_transport
from tests.sharded.reference import TRANSPORTS, random_ids, random_rows

V, D, TOKENS = 131, 6, 24
close = partial(torch.testing.assert_close, rtol=0, atol=1e-9)


@pytest.fixture(scope="module", params=[None, *TRANSPORTS])
def transport(request: pytest.FixtureRequest, device: torch.device) -> str | None:
    """None: without a group."""
    if request.param == "shared_memory" and device.type != "cpu":
        pytest.skip("shared memory is for tables on the CPU")
    return request.param


@pytest.fixture(scope="module")
def group(transport: str | None, device: torch.device) -> Iterator[dist.ProcessGroup | None]:
    if transport is None:
        yield None
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def one_rank(group: dist.ProcessGroup | None, transport: str | None, device: torch.device) -> RankGroup | None:
    """The group of the one rank, which exchanges with itself."""
    return None if group is None else RankGroup(_make_transport(transport, group, device), device, group)


Share = Callable[[DistributedEmbedding], DistributedEmbedding]
Build = Callable[..., DistributedEmbedding]


@pytest.fixture
def share(one_rank: RankGroup | None) -> Share:
    """A table of one rank has its rows at hand and need not exchange anything. Here it is to do so."""

    def with_group(table: DistributedEmbedding) -> DistributedEmbedding:
        assert table.process_group is None
        if one_rank is not None:
            table.group, table._store = one_rank, RowStore(one_rank, table.weight.detach())
            table._store.is_in_place = False
        return table

    return with_group


@pytest.fixture
def new_table(device: torch.device, group: dist.ProcessGroup | None, share: Share) -> Build:
    def build(*size: int, **settings: Any) -> DistributedEmbedding:
        settings = {"dtype": torch.float64, "seed": 1, "process_group": group, **settings}
        return share(DistributedEmbedding(*size, device=device, **settings))

    return build


def whole(table: DistributedEmbedding, **settings: Any) -> nn.Embedding:
    """The same table on the CPU, as its only copy."""
    weight = table.weight.detach().cpu().clone()
    return nn.Embedding(*weight.shape, table.padding_idx, _weight=weight, **settings)


def ids_of(seed: int, num_rows: int = V) -> Tensor:
    return random_ids(num_rows, (TOKENS // 4, 4), seed)


def loss_of(rows: Tensor) -> Tensor:
    return (rows * random_rows(tuple(rows.shape), seed=0).to(rows) + rows.square()).sum()


def test_two_tables_in_one_exchange(device: torch.device, new_table: Build, group: dist.ProcessGroup | None):
    tables = [new_table(V, D, 3, max_norm=2.0), new_table(50, 2, layout="round_robin", scale_grad_by_freq=True)]
    references = [whole(tables[0], max_norm=2.0), whole(tables[1], scale_grad_by_freq=True)]
    ids = [ids_of(0), ids_of(1, 50)[:2]]
    on_device = [mine.to(device) for mine in ids]
    plan = make_plan(tables, on_device)
    for rows in (lookup(tables, on_device), lookup(tables, on_device, plan)):
        sum(loss_of(mine) for mine in rows).backward()
        for mine, reference, its_ids in zip(rows, references, ids, strict=True):
            assert mine.device.type == device.type
            expected = reference(its_ids)
            close(mine.detach().cpu(), expected.detach())
            loss_of(expected).backward()
    for table, reference in zip(tables, references, strict=True):
        assert table.weight.grad.is_coalesced()
        close(table.weight.grad.to_dense().cpu(), reference.weight.grad)
    assert (tables[0].statistics.collectives > 0) == (group is not None)
    empty = torch.empty(0, 3, dtype=torch.long, device=device)
    assert tables[0](empty).shape == (0, 3, D)


@pytest.mark.parametrize("comm_dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(device: torch.device, new_table: Build, group: Any, dtype: torch.dtype, comm_dtype: torch.dtype | None):
    table = new_table(V, D, dtype=dtype, comm_dtype=comm_dtype)
    rows = table(ids_of(0).to(device))
    rows.backward(torch.ones_like(rows))
    on_the_way = dtype if comm_dtype is None or group is None else comm_dtype
    assert torch.equal(rows.detach().cpu(), table.weight.detach().cpu()[ids_of(0)].to(on_the_way).to(dtype))
    counts = torch.bincount(ids_of(0).flatten(), minlength=V)[:, None].expand(-1, D)
    assert torch.equal(table.weight.grad.to_dense().cpu(), counts.to(dtype))


def test_a_table_of_one_process_is_moved_as_any_module(device: torch.device):
    table = DistributedEmbedding(V, D, 3, dtype=torch.float64, seed=1)
    expected = whole(table)(ids_of(0))
    for there in (device, torch.device("cpu")):
        rows = table.to(there)(ids_of(0).to(there))
        assert rows.device.type == there.type
        close(rows.detach().cpu(), expected.detach())
        loss_of(rows).backward()
        table.weight.grad = None


def test_bad_ids_raise_as_on_the_cpu(device: torch.device, new_table: Build):
    table = new_table(V, D)
    for bad, message in (
        (torch.tensor([[3, V]]), f"id {V} at position (0, 1) on rank 0 is outside [0, {V})"),
        (torch.tensor([-1]), f"id -1 at position (0,) on rank 0 is outside [0, {V})"),
    ):
        with pytest.raises(IndexError) as error:
            table(bad.to(device))
        assert str(error.value) == message
    with pytest.raises(TypeError, match="must be integers"):
        table(torch.ones(2, device=device))
    assert table(torch.tensor([V - 1], device=device)).shape == (1, D)


def test_batches_ahead(device: torch.device, new_table: Build):
    table, batches = new_table(V, D), [ids_of(seed) for seed in range(3)]
    seen = [
        batch for batch, [rows] in Lookahead([table], batches, lambda ids: [ids]) if loss_of(rows).backward() is None
    ]
    assert all(map(torch.equal, seen, batches))
    reference = whole(table)
    sum(loss_of(reference(batch)) for batch in batches).backward()
    close(table.weight.grad.to_dense().cpu(), reference.weight.grad)


OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], Callable[..., Optimizer]]] = {
    "torch's SGD": (partial(SGD, lr=0.5), partial(SGD, lr=0.5)),
    "torch's Adagrad": (partial(Adagrad, lr=0.3), partial(Adagrad, lr=0.3)),
    "torch's SparseAdam": (torch.optim.SparseAdam, torch.optim.SparseAdam),
    "SparseSGD": (partial(optim.SparseSGD, lr=0.5, momentum=0.9), partial(optim.SparseSGD, lr=0.5, momentum=0.9)),
    "SparseAdagrad": (partial(optim.SparseAdagrad, lr=0.3), partial(Adagrad, lr=0.3)),
    "RowWiseAdagrad": (RowWiseAdagrad, RowWiseAdagrad),
    "SparseAdam": (optim.SparseAdam, torch.optim.SparseAdam),
    "RowWiseAdam": (optim.RowWiseAdam, optim.RowWiseAdam),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_clipping(device: torch.device, new_table: Build, name: str):
    torch.manual_seed(0)
    table, core = new_table(V, D, 3), nn.Linear(D, 3, dtype=torch.float64, device=device)
    reference, reference_core = whole(table, sparse=True), nn.Linear(D, 3, dtype=torch.float64)
    reference_core.load_state_dict(core.state_dict())
    ours, theirs = (make([module.weight]) for make, module in zip(OPTIMIZERS[name], (table, reference), strict=True))
    norms = []
    for step in range(4):
        for module, its_core, optimizer in ((table, core, ours), (reference, reference_core, theirs)):
            optimizer.zero_grad()
            its_core.zero_grad()
            loss_of(its_core(module(ids_of(step).to(module.weight.device)))).backward()
        norms.append(clip_grad_norm_(core, [table], max_norm=1.0))
        parameters = [*reference_core.parameters(), reference.weight]
        reference.weight.grad = reference.weight.grad.coalesce()
        values = [p.grad.values() if p.grad.is_sparse else p.grad for p in parameters]
        norm = torch.stack([value.norm() for value in values]).norm()
        for value in values:
            value.div_(norm.clamp(min=1.0))
        close(norms[-1].cpu(), norm)
        with torch.sparse.check_sparse_tensor_invariants():  # torch warns unless told to check or not
            ours.step()
            theirs.step()
    assert min(norms) > 1
    close(core.weight.grad.cpu(), reference_core.weight.grad)
    close(table.weight.detach().cpu(), reference.weight.detach())


def test_conversion_growth_and_new_beginnings(device: torch.device, new_table: Build, group: Any, share: Share):
    embedding = nn.Embedding(V, D, 3, dtype=torch.float64).to(device)
    table = DistributedEmbedding.from_embedding(embedding, process_group=group)
    assert table.weight.device.type == device.type
    assert torch.equal(share(table).to_embedding().weight, embedding.weight)

    table = new_table(V, D, 3)
    fresh = new_table(V + 9, D, 3).weight.detach()
    optimizer = RowWiseAdagrad([table.weight])
    for seed in range(2):
        loss = loss_of(table(ids_of(seed).to(device)))
        loss.backward()
        optimizer.step()
    before, sums = table.weight.detach().clone(), optimizer.state[table.weight]["sum"].clone()
    table.grow(V + 9, optimizer)
    assert torch.equal(table.weight, torch.cat((before, fresh[V:])))
    assert torch.equal(optimizer.state[table.weight]["sum"], torch.cat((sums, sums.new_zeros(9))))
    chosen = ids_of(0)[0].to(device)
    table.reset_rows(chosen, optimizer)
    assert torch.equal(table.weight[chosen], fresh[chosen])
    assert not optimizer.state[table.weight]["sum"][chosen].any()
    loss_of(table(torch.tensor([V + 8], device=device))).backward()
    assert table.weight.grad.indices().tolist() == [[V + 8]]

    copied = new_table(V, D, 3, seed=2)
    copied.load_state_dict(new_table(V, D, 3).state_dict())
    assert torch.equal(copied.weight, fresh[:V])


EXACT = partial(SampledSoftmaxLoss, num_samples=20_000)
LOSSES = [VocabParallelCrossEntropy, EXACT, partial(EXACT, frequencies=torch.arange(V, 2 * V))]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses(device: torch.device, new_table: Build, kind: Callable[..., nn.Module], smoothing: float):
    """With so many samples every class is a candidate with a probability of 1, and the sampled loss is exact."""
    table, bias = new_table(V, D, init_std=D**-0.5), new_table(V, 1, init_std=0.5)
    loss = kind(table, bias, label_smoothing=smoothing)
    hidden, target = random_rows((4, TOKENS // 4, D), seed=3), ids_of(0).view(4, -1)
    target[0, :2] = -100
    on_device = hidden.to(device).requires_grad_()
    value = loss(on_device, target.to(device))
    value.backward()
    weights = [table.weight.detach().cpu().requires_grad_(), bias.weight.detach().cpu().requires_grad_()]
    hidden.requires_grad_()
    logits = hidden @ weights[0].t() + weights[1].flatten()
    expected = F.cross_entropy(logits.view(-1, V), target.flatten(), label_smoothing=smoothing)
    expected.backward()
    close(value.detach().cpu(), expected.detach())
    close(on_device.grad.cpu(), hidden.grad)
    for parameter, weight in zip((table.weight, bias.weight), weights, strict=True):
        close(parameter.grad.to_dense().cpu(), weight.grad)


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_under_autocast(device: torch.device, new_table: Build, kind: Callable[..., nn.Module]):
    """Products are in bfloat16, sums in float32: loss and gradients are those without autocast to about 2^-8."""
    table = new_table(V, D, init_std=D**-0.5, dtype=torch.float32)
    loss, target = kind(table), ids_of(0).to(device)
    found = []
    for enabled in (False, True):
        hidden = random_rows((*target.shape, D), seed=3).float().to(device).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            value = loss(hidden, target)
        value.backward()
        found.append([value.detach(), hidden.grad, table.weight.grad.to_dense()])
        table.weight.grad = None
    for exact, reduced in zip(*found, strict=True):
        assert reduced.dtype == torch.float32
        torch.testing.assert_close(reduced, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


def test_the_likeliest_classes(device: torch.device, new_table: Build):
    table = new_table(V, D)
    hidden = random_rows((5, D), seed=3)
    values, ids = VocabParallelCrossEntropy(table).top_k(hidden.to(device), 3)
    expected = (hidden @ table.weight.detach().cpu().t()).log_softmax(1).topk(3)
    close(values.detach().cpu(), expected.values)
    assert torch.equal(ids.cpu(), expected.indices)
