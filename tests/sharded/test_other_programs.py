"""What other programs do with tables: weights that are shared, batches that are changed, optimizers that grow."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded import (
    DistributedEmbedding,
    SparseSGD,
    VocabParallelCrossEntropy,
    clip_grad_norm_,
    clip_grad_value_,
    uneven,
)
from tests.rank_pool import RankPool
from tests.sharded.tables.test_hybrid import GRIDS, mesh_of, new_table

V, D = 131, 4


def new(group: dist.ProcessGroup | None = None, num_embeddings: int = V, **settings: Any) -> DistributedEmbedding:
    return DistributedEmbedding(num_embeddings, D, process_group=group, seed=3, dtype=torch.float64, **settings)


def test_a_weight_that_two_tables_share_is_clipped_once() -> None:
    norms, gradients = [], []
    for is_shared in (False, True):
        table, other = new(), new()
        if is_shared:
            other.weight = table.weight
        table(torch.arange(9)).square().sum().backward()
        norms.append(clip_grad_norm_([], [table, other] if is_shared else [table], max_norm=0.5))
        clip_grad_value_([], [other, table] if is_shared else [table], 0.1)
        assert table.weight.grad is not None
        gradients.append(table.weight.grad.to_dense())
    assert torch.equal(norms[0], norms[1])
    assert torch.equal(gradients[0], gradients[1])


def walk_changing_batches(group: dist.ProcessGroup) -> list[tuple[int, ...]]:
    """Rank 0 has three batches, the others one; each is taken apart in the loop."""
    batches = [{"ids": torch.arange(4), "labels": torch.ones(4, 2)} for _ in range(1 if dist.get_rank(group) else 3)]
    members = list(range(dist.get_world_size(group)))
    seen = []
    for batch in uneven(batches, dist.new_group(members, backend="gloo")):
        labels = batch.pop("labels")
        seen.append((len(batch.pop("ids")), *labels.shape))
    return seen


def test_batches_may_be_taken_apart(ranks: RankPool) -> None:
    for rank, seen in enumerate(ranks.run(walk_changing_batches, world_size=3)):
        assert seen == ([(4, 4, 2)] * 3 if rank == 0 else [(4, 4, 2), (0, 0, 2), (0, 0, 2)])


def differ_within_a_replica(group: dist.ProcessGroup) -> list[str]:
    """One rank of one replica has another setting: of a table, of its growing, and of an output layer."""
    mesh, rank = mesh_of(GRIDS[0]), dist.get_rank()
    errors = []
    with pytest.raises(ValueError, match="same on every rank") as error:
        new_table(mesh, grad_reduction="sum" if rank == 1 else "mean")
    errors.append(str(error.value))
    table = new_table(mesh)
    with pytest.raises(ValueError, match="same on every rank") as error:
        table.grow(V + (rank == 1))
    errors.append(str(error.value))
    for smoothing in (0.1 * (rank == 1), 0.1 * (rank >= 2)):  # within a replica, and between them
        with pytest.raises(ValueError, match="same on every rank") as error:
            VocabParallelCrossEntropy(table, label_smoothing=smoothing)
        errors.append(str(error.value).partition(",")[0])
    layer = VocabParallelCrossEntropy(table)
    hidden = torch.ones(2, table.embedding_dim, dtype=torch.float32 if rank == 1 else torch.float64)
    with pytest.raises(ValueError, match="same on every rank") as error:
        layer(hidden, torch.zeros(2, dtype=torch.int64))
    errors.append(str(error.value).partition(",")[0])
    table(torch.tensor([rank])).sum().backward()  # nobody is left behind
    return errors


def test_what_differs_within_a_replica_is_an_error_in_all(ranks: RankPool) -> None:
    by_rank = ranks.run(differ_within_a_replica, timeout=30.0)
    for texts in zip(*by_rank, strict=True):
        assert len(set(texts)) == 1


def test_a_bias_of_other_ranks_is_refused(ranks: RankPool) -> None:
    assert all(ranks.run(bias_of_others, world_size=2))


def bias_of_others(group: dist.ProcessGroup) -> bool:
    table = new(group)
    bias = DistributedEmbedding(V, 1, process_group=dist.new_group([0, 1]), dtype=torch.float64, seed=1)
    with pytest.raises(ValueError, match="the bias must be shared by the table's ranks in the same way"):
        VocabParallelCrossEntropy(table, bias)
    return True


def grow_before_backward(group: dist.ProcessGroup, transport: str) -> str:
    table = new(group, 4, transport=transport)
    rows = table(torch.tensor([0, 3]))
    table.grow(5)
    with pytest.raises(ValueError, match="another number of rows between a lookup and its backward") as error:
        rows.sum().backward()
    table(torch.tensor([4])).sum().backward()
    return str(error.value)


@pytest.mark.parametrize("transport", ["collective", "shared_memory"])
def test_growing_between_forward_and_backward_is_told(ranks: RankPool, transport: str) -> None:
    assert len(set(ranks.run(grow_before_backward, transport, world_size=3))) == 1


def momentum(group: dist.ProcessGroup | None, change: str) -> Tensor:
    """The rows of a table that torch's SGD trains, with a change after two steps."""
    table = new(group, 11)
    optimizer = torch.optim.SGD([table.weight], lr=0.1, momentum=0.9)
    for step in range(4):
        optimizer.zero_grad()
        table(torch.arange(11)).square().sum().backward()
        optimizer.step()
        if step == 1 and change == "grow":
            table.grow(13, optimizer)
        elif step == 1:
            table.reset_rows(torch.tensor([2, 7]), optimizer)
    whole = table.to_embedding()
    assert whole is not None
    return whole.weight.detach()


@pytest.mark.parametrize("change", ["grow", "reset"])
def test_the_momentum_of_torchs_sgd_goes_along(ranks: RankPool, change: str) -> None:
    alone = momentum(None, change)
    for found in ranks.run(momentum, change, world_size=3):
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)


def add_a_table_later(group: dist.ProcessGroup) -> bool:
    core, table = nn.Parameter(torch.ones(1, dtype=torch.float64)), new(group)
    optimizer = torch.optim.Adagrad([core])
    core.sum().backward()
    optimizer.step()
    optimizer.add_param_group({"params": [table.weight]})
    table(torch.arange(V)).square().sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()["state"][1]["sum"]
    return tuple(saved.shape) == (V, D)  # of all rows, not this rank's


def test_a_table_that_an_optimizer_gets_later(ranks: RankPool) -> None:
    assert ranks.run(add_a_table_later, world_size=2) == [True, True]


def test_ids_of_another_device_are_told() -> None:
    table = new()
    with pytest.raises(ValueError, match=r"ids on rank 0 are on meta, but the table is on the CPU; move them"):
        table(torch.empty(3, dtype=torch.int64, device="meta"))


def test_a_weight_that_is_computed_is_refused() -> None:
    table = new()
    with pytest.raises(TypeError, match=r"computed from another, as FSDP and nn\.DataParallel do"):
        table.weight = table.weight * 1


def test_what_is_forbidden_must_be_ids() -> None:
    layer = VocabParallelCrossEntropy(new())
    hidden = torch.ones(2, D, dtype=torch.float64)
    for forbidden in (None, ["a"], torch.tensor([1])):
        for ask in (lambda given: layer.top_k(hidden, 2, given), lambda given: layer.log_probabilities(hidden, given)):
            with pytest.raises(TypeError, match="forbidden on rank 0 must be a list of ids"):
                ask(forbidden)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, but is None"):
        layer.top_k(hidden, None)  # type: ignore[arg-type]


def freeze_on_the_first(group: dist.ProcessGroup) -> bool:
    embedding = nn.Embedding(7, D)
    embedding.weight.requires_grad_(dist.get_rank(group) != 0)
    table = DistributedEmbedding.from_embedding(embedding, process_group=group)
    assert SparseSGD([table.weight], lr=0.1)
    return table.weight.requires_grad


def test_the_first_rank_says_what_is_frozen(ranks: RankPool) -> None:
    assert ranks.run(freeze_on_the_first, world_size=2) == [False, False]


def twice_over(group: dist.ProcessGroup, transport: str) -> bool:
    """A vocabulary that is there twice, so that both shards are equal; the next table is watched as ever."""
    half = torch.randn(8, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = torch.cat([half, half])
    table = DistributedEmbedding.from_pretrained(whole, freeze=False, process_group=group, transport=transport)
    for _ in range(2):
        rows = table(torch.arange(16))
        assert torch.equal(rows, whole)
    rows.sum().backward()
    other = new(group, 16, transport=transport)
    dist.broadcast(other.weight.data, 0, group=group)
    with pytest.raises(RuntimeError, match="hold the same numbers"):
        other(torch.arange(16))
    return True


@pytest.mark.parametrize("transport", ["collective", "shared_memory"])
def test_shards_that_are_meant_to_be_equal(ranks: RankPool, transport: str) -> None:
    assert ranks.run(twice_over, transport, world_size=2) == [True, True]
