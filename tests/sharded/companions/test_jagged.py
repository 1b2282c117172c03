"""KeyedJaggedTensors as input: one that can do what TorchRec's can, and TorchRec's own where that is installed."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbeddingBag
from dist_s2s.sharded.companions.jagged import lookup_jagged
from tests.rank_pool import RankPool
from tests.sharded.reference import random_ids
from tests.sharded.tables.test_bad_input import raised


@dataclass
class Jagged:
    ids: Tensor
    sizes: Tensor
    weights: Tensor | None = None

    def values(self) -> Tensor:
        return self.ids

    def lengths(self) -> Tensor:
        return self.sizes

    def weights_or_none(self) -> Tensor | None:
        return self.weights


class Keyed(dict[str, Jagged]):
    def to_dict(self) -> "Keyed":
        return self


def features_of(rank: int) -> Keyed:
    def bags(num_rows: int, lengths: list[int], weighted: bool, seed: int) -> Jagged:
        ids = random_ids(num_rows, (sum(lengths),), seed)
        return Jagged(ids, torch.tensor(lengths, dtype=torch.int32), 0.5 * ids.float() if weighted else None)

    return Keyed(
        user=bags(131, [2, 0, 3], False, rank),
        item=bags(57, [1, 4, 0], True, rank + 10),
        last=bags(57, [1, 1, rank], True, rank + 20),
        unused=bags(5, [1, 1, 1], False, rank),
    )


def build(group: dist.ProcessGroup | None) -> dict[str, DistributedEmbeddingBag]:
    users = DistributedEmbeddingBag(131, 4, mode="mean", process_group=group, seed=0)
    items = DistributedEmbeddingBag(57, 3, mode="sum", process_group=group, seed=1, include_last_offset=True)
    return {"user": users, "item": items, "last": items}


def pool(group: dist.ProcessGroup) -> tuple[dict[str, Tensor], list[Tensor]]:
    tables = build(group)
    pooled = lookup_jagged(tables, features_of(dist.get_rank(group)))
    torch.cat(list(pooled.values()), dim=1).square().sum().backward()
    gradients = [tables[name].weight.grad for name in ("user", "item")]
    assert all(gradient.is_coalesced() for gradient in gradients)
    return {name: rows.detach() for name, rows in pooled.items()}, [gradient.to_dense() for gradient in gradients]


def test_features_are_pooled_from_their_tables(ranks: RankPool):
    results = ranks.run(pool, world_size=2)
    whole = {name: table.to_embedding_bag() for name, table in build(None).items()}
    whole["last"] = whole["item"]
    for rank, (pooled, _) in enumerate(results):
        features = features_of(rank)
        assert list(pooled) == ["user", "item", "last"]
        for name, rows in pooled.items():
            bags = features[name]
            ends = torch.tensor([0, *bags.sizes]).cumsum(0)
            offsets = ends if whole[name].include_last_offset else ends[:-1]
            expected = whole[name](bags.ids, offsets, bags.weights)
            torch.testing.assert_close(rows, expected.detach())
            (expected.square().sum() / 2).backward()
    for place, name in enumerate(("user", "item")):
        gradient = torch.cat([gradients[place] for _, gradients in results])
        torch.testing.assert_close(gradient, whole[name].weight.grad.to_dense())


def misuse(group: dist.ProcessGroup) -> list[str]:
    tables, features = build(group), features_of(0)
    lacking: Any = Keyed({name: bags for name, bags in features.items() if name != "item"})
    first = dist.get_rank(group) == 0
    return [
        raised(lambda: lookup_jagged(tables, features if first else lacking))[0],
        raised(lambda: lookup_jagged(tables, features if first else torch.ones(3)))[0],  # type: ignore[arg-type]
    ]


def test_features_that_are_missing_on_one_rank_are_an_error_on_all(ranks: RankPool):
    assert ranks.run(misuse, world_size=2) == 2 * [
        [
            "ValueError: features on rank 1 lack 'item', for which there is a table",
            "TypeError: features on rank 1 must be a KeyedJaggedTensor, but are a Tensor",
        ]
    ]


def test_torchrecs_own():
    torchrec = pytest.importorskip("torchrec")
    ids, lengths = torch.tensor([5, 6, 7, 8, 9, 9]), torch.tensor([2, 0, 1, 3])
    features = torchrec.KeyedJaggedTensor.from_lengths_sync(keys=["user", "item"], values=ids, lengths=lengths)
    tables = build(None)
    del tables["last"]
    pooled = lookup_jagged(tables, features)
    whole = tables["user"].to_embedding_bag()
    torch.testing.assert_close(pooled["user"], whole(ids[:2], torch.tensor([0, 2])))
