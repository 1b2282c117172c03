"""A whole nn.Embedding becomes a sharded table and back, and a state_dict says which shard it holds."""

import inspect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.tables import resharding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_rows

V, D = 131, 5
ATTRIBUTES = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")


@dataclass(frozen=True)
class Case:
    whole: Tensor
    layout: str
    piece_bytes: int
    trained: bool
    settings: dict[str, Any]

    def embedding(self, device: str) -> nn.Embedding:
        embedding = nn.Embedding(*self.whole.shape, **self.settings, _weight=self.whole.to(device, copy=True))
        return embedding.requires_grad_(self.trained)


def cases() -> list[Case]:
    few, many = ({}, {"padding_idx": -2, "max_norm": 1.5, "norm_type": 1.0, "scale_grad_by_freq": True})
    result = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for rows in (V, 2):  # with 2 rows some of 3 ranks own none
            whole = random_rows((rows, D), seed=rows).to(dtype)
            whole[0, :3] = torch.tensor([-0.0, torch.nan, -torch.inf])
            for layout in LAYOUTS:
                result += [Case(whole, layout, 16 << 20, True, few), Case(whole, layout, 100, False, many)]
    return result


def bits(tensor: Tensor) -> Tensor:
    """For which 0.0 and -0.0 are different, and nan is itself."""
    return tensor.detach().view(torch.uint8)


def summary(embedding: DistributedEmbedding | nn.Embedding | None) -> tuple[list[Any], Tensor] | None:
    """Settings and a copy of the weight."""
    if embedding is None:
        return None
    settings = [getattr(embedding, name) for name in ATTRIBUTES]
    return [*settings, embedding.weight.requires_grad], embedding.weight.detach().clone()


def convert(group: dist.ProcessGroup, cases: list[Case]) -> list[list[tuple[list[Any], Tensor] | None]]:
    """For each case the table from rank 0's nn.Embedding, and the nn.Embedding of it on all ranks, and on the last."""
    results, rank = [], dist.get_rank(group)
    for case in cases:
        with patch.object(resharding, "PIECE_BYTES", case.piece_bytes):
            embedding = case.embedding("cpu" if rank == 0 else "meta")
            table = DistributedEmbedding.from_embedding(embedding, layout=case.layout, process_group=group)
            everywhere, on_last = table.to_embedding(), table.to_embedding(dst=dist.get_world_size(group) - 1)
        assert everywhere is not None
        if rank == 0:
            embedding.weight.detach().zero_()  # nobody shares its memory
            everywhere.weight.detach().zero_()
            everywhere = table.to_embedding()
        else:
            table.to_embedding()
        results.append([summary(table), summary(everywhere), summary(on_last)])
    return results


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_tables_become_sharded_and_whole_again_bit_by_bit(ranks: RankPool, world_size: int):
    results = ranks.run(convert, cases(), world_size=world_size)
    for case, of_ranks in zip(cases(), zip(*results, strict=True), strict=True):
        settings, whole = summary(case.embedding("cpu"))
        tables, everywhere, on_last = zip(*of_ranks, strict=True)
        assert torch.equal(bits(assemble([shard for _, shard in tables], case.layout)), bits(whole))
        assert [result is None for result in on_last] == [True] * (world_size - 1) + [False]
        for its_settings, weight in [*everywhere, on_last[-1]]:
            assert its_settings == settings
            assert torch.equal(bits(weight), bits(whole))
        assert [its_settings for its_settings, _ in tables] == [settings] * world_size


def test_what_becomes_an_nn_embedding_can_be_trained():
    for scale_grad_by_freq in (False, True):
        table = DistributedEmbedding(V, D, 3, scale_grad_by_freq=scale_grad_by_freq)
        embedding, ids = table.to_embedding(), torch.tensor([3, 5, 5, 130])
        assert embedding is not None
        for module in (table, embedding):
            module(ids).sum().backward()
        assert torch.equal(embedding.weight.grad.to_dense(), table.weight.grad.to_dense())


def test_from_pretrained_freezes_unless_told_otherwise():
    rows = random_rows((V, D), seed=0)
    frozen = DistributedEmbedding.from_pretrained(rows, padding_idx=4)
    assert not frozen.weight.requires_grad
    assert frozen.padding_idx == 4
    assert torch.equal(frozen.weight, rows)
    trained = DistributedEmbedding.from_pretrained(rows, freeze=False, dtype=torch.float32)
    assert trained.weight.requires_grad
    assert torch.equal(trained.weight, rows.float())
    with pytest.raises(ValueError, match=r"^embeddings must have 2 dimensions, but have 1$"):
        DistributedEmbedding.from_pretrained(rows[0])


def destination(group: dist.ProcessGroup, dst: int) -> str:
    table = DistributedEmbedding(V, D, process_group=group)
    with pytest.raises(ValueError, match="dst") as error:
        table.to_embedding(dst)
    return str(error.value)


def test_a_destination_that_is_no_rank_is_refused(ranks: RankPool):
    for dst in (2, -1):
        expected = [f"dst must be a rank of the table's process group, within [0, 2), but is {dst}"] * 2
        assert ranks.run(destination, dst, world_size=2) == expected


def test_arguments_and_defaults_are_those_of_nn_embedding():
    own, torchs = (inspect.signature(kind).parameters for kind in (DistributedEmbedding, nn.Embedding))
    for name in ATTRIBUTES:
        assert list(own).index(name) == list(torchs).index(name)
        assert own[name].default == torchs[name].default
    table, embedding = DistributedEmbedding(V, D), nn.Embedding(V, D)
    assert summary(table)[0] == summary(embedding)[0]
    assert table.weight.shape == embedding.weight.shape
    assert table.weight.dtype == embedding.weight.dtype
    for module in (table, embedding):
        for bad in (V, -1):
            with pytest.raises(IndexError):
                module(torch.tensor([0, bad]))


def model(first: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(table=first, core=nn.Linear(D, 2).double()))


def load(group: dist.ProcessGroup, whole: dict[str, Tensor]) -> tuple[list[Any], list[str]]:
    """The shards after loading each kind of state_dict, and the messages of those that are refused."""
    shards, messages = [], []
    for layout in LAYOUTS:
        settings = {"layout": layout, "process_group": group, "dtype": torch.float64}
        saved = model(DistributedEmbedding(V, D, seed=1, **settings))
        loaded = model(DistributedEmbedding(V, D, seed=2, **settings))
        state = saved.state_dict()
        by_id = {**state, "table.weight": state["table.weight"].full_tensor()}
        for own in (state, {**state, "table.weight": state["table.weight"].clone()}, by_id):
            loaded.table.weight.detach().zero_()
            loaded.load_state_dict(own)
            shards.append((torch.equal(loaded.table.weight, saved.table.weight), True))
        loaded.load_state_dict(whole)
        shards.append((layout, loaded.table.weight.detach().clone()))

        other = LAYOUTS[layout == LAYOUTS[0]]
        other_layout = DistributedEmbedding(V, D, layout=other, process_group=group).state_dict(prefix="table.")
        other_size = DistributedEmbedding(V + 1, D, process_group=group).state_dict(prefix="table.")
        for bad in (
            {**state, **other_layout},
            {**state, **other_size},
            {**state, "table.weight": saved.table.weight.detach()},
            {**whole, "table.weight": torch.zeros(V + 1, D)},
            {**whole, "table.weight": torch.zeros(V, D + 1)},
        ):
            with pytest.raises(RuntimeError) as error:
                loaded.load_state_dict(bad)
            messages.append(str(error.value))
            assert torch.equal(loaded.table.weight, shards[-1][1])
    return shards, messages


def test_state_dicts_of_the_own_shard_and_of_whole_tables_load_and_no_others(ranks: RankPool):
    whole = model(nn.Embedding(V, D, dtype=torch.float64)).state_dict()
    local = model(DistributedEmbedding(V, D, dtype=torch.float64)).state_dict()
    assert {name: list(tensor.shape) for name, tensor in local.items() if "table" in name} == {
        "table.weight": [V, D],
        "table._extra_state": [3],
    }
    results = ranks.run(load, whole, world_size=3)
    for number, (first, _) in enumerate(results[0][0]):
        values = [shards[number][1] for shards, _ in results]
        if first in LAYOUTS:
            assert torch.equal(assemble(values, first), whole["table.weight"])
        else:
            assert all(shards[number] == (True, True) for shards, _ in results)
    for rank, (_, messages) in enumerate(results):
        rows = V // 3 + (rank < V % 3)
        for place, layout in enumerate(LAYOUTS):
            wrong = [
                f"{rows} of 131 rows ({LAYOUTS[1 - place]}, rank {rank} of 3)",
                f"44 of 132 rows (contiguous, rank {rank} of 3)",
                f"a tensor of shape [{rows}, 5]",
                "a tensor of shape [132, 5]",
            ]
            own = f"this shard has {rows} of 131 rows ({layout}, rank {rank} of 3), of width 5"
            *mismatches, width = messages[5 * place : 5 * place + 5]
            for message, theirs in zip(mismatches, wrong, strict=True):
                assert f"size mismatch for table.weight: the state_dict holds {theirs}" in message
                assert own in message
            assert "size mismatch for table.weight" in width


def test_gradients_still_accumulate_after_loading_with_assign():
    table = DistributedEmbedding(V, D)
    table.load_state_dict(DistributedEmbedding(V, D, seed=3).state_dict(), assign=True)
    assert torch.equal(table.weight, DistributedEmbedding(V, D, seed=3).weight)
    for ids in ([1, 2, 3], [3, 4]):
        table(torch.tensor(ids)).sum().backward()
    assert table.weight.grad.is_coalesced()
    assert table.weight.grad.indices().tolist() == [[1, 2, 3, 4]]
