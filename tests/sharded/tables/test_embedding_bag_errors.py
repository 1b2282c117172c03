"""What is wrong with one rank's bags is the same error on every rank, and the table can be used again."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbeddingBag, lookup_bags
from tests.rank_pool import RankPool
from tests.sharded.reference import TRANSPORTS
from tests.sharded.tables.test_bad_input import ERROR_SECONDS, raised

IDS, STARTS, WEIGHTS = torch.tensor([0, 65, 130]), torch.tensor([0, 2]), torch.ones(3)
ENDS = torch.tensor([0, 2, 3])
# Settings of the table, what rank 1 calls it with, and the error.
BAD: dict[str, tuple[dict[str, Any], tuple[Any, ...], str]] = {
    "id": ({}, (torch.tensor([[0, 131]]),), "IndexError: id 131 at position (0, 1) on rank 1 is outside [0, 131)"),
    "floats": (
        {},
        (torch.ones(2, 2),),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()",
    ),
    "three dimensions": (
        {},
        (torch.zeros(1, 1, 1).long(),),
        "ValueError: ids on rank 1 must have 1 or 2 dimensions, but have 3",
    ),
    "no offsets": (
        {},
        (IDS,),
        "ValueError: ids on rank 1 have 1 dimension, so that offsets must say where each bag begins",
    ),
    "offsets of rows": (
        {},
        (IDS[None], STARTS),
        "ValueError: offsets on rank 1 must be None for ids of 2 dimensions, whose rows are the bags",
    ),
    "a list": (
        {},
        (IDS, [0, 2]),
        "TypeError: offsets on rank 1 must be a tensor of integers of 1 dimension, but are list",
    ),
    "offsets of two dimensions": (
        {},
        (IDS, STARTS[None]),
        "TypeError: offsets on rank 1 must be a tensor of integers of 1 dimension, but are torch.int64 [1, 2]",
    ),
    "late": ({}, (IDS, torch.tensor([1, 2])), "ValueError: offsets on rank 1 must begin with 0, but begin with 1"),
    "none": ({}, (IDS, STARTS[:0]), "ValueError: offsets on rank 1 are none, but must begin with 0"),
    "falling": (
        {},
        (IDS, torch.tensor([0, 3, 2], dtype=torch.uint8)),
        "ValueError: offsets on rank 1 must not fall, but 3 at position 1 is followed by 2",
    ),
    "far": (
        {"include_last_offset": True},
        (IDS, torch.tensor([0, 4])),
        "ValueError: offsets on rank 1 end with 4, but there are only 3 ids",
    ),
    "weights of a mean": (
        {"mode": "mean"},
        (IDS, STARTS, WEIGHTS),
        "ValueError: per_sample_weights on rank 1 need the mode sum, but the table's is mean",
    ),
    "weights of another shape": (
        {},
        (IDS, STARTS, WEIGHTS[:2]),
        "ValueError: per_sample_weights on rank 1 must have the shape of the ids, (3,), but have (2,)",
    ),
    "weights of another dtype": (
        {},
        (IDS, STARTS, WEIGHTS.double()),
        "TypeError: per_sample_weights on rank 1 must be of torch.float32, but are torch.float64",
    ),
}


def give_rank_one_bad_bags(group: dist.ProcessGroup, transport: str) -> list[tuple[str, float, Tensor]]:
    """For each kind: the error, the seconds until it came, and the next output of the same table."""
    results = []
    for options, arguments, _ in BAD.values():
        bag = DistributedEmbeddingBag(
            131, 4, process_group=group, transport=transport, seed=0, **{"mode": "sum", **options}
        )
        good = (IDS, ENDS if bag.include_last_offset else STARTS)
        mine = arguments if dist.get_rank(group) == 1 else good
        results.append((*raised(lambda bag=bag, mine=mine: bag(*mine)), bag(*good).detach()))
    return results


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bad_bags_of_one_rank_raise_one_error_on_every_rank(ranks: RankPool, transport: str):
    for results in ranks.run(give_rank_one_bad_bags, transport, world_size=3):
        for (options, _, message), (error, seconds, after) in zip(BAD.values(), results, strict=True):
            assert error == message
            assert seconds < ERROR_SECONDS
            whole = DistributedEmbeddingBag(131, 4, seed=0, **{"mode": "sum", **options})
            assert torch.allclose(after, whole(IDS, ENDS if whole.include_last_offset else STARTS))


def misuse(group: dist.ProcessGroup) -> list[str]:
    """Too many arguments on rank 1, pooled on rank 0 and not on rank 1, and then tables that differ."""
    bag, rank = DistributedEmbeddingBag(131, 4, mode="sum", process_group=group), dist.get_rank(group)
    many = (IDS, STARTS, None, None) if rank == 1 else (IDS, STARTS)
    return [
        raised(lambda: lookup_bags([bag], [many]))[0],
        raised(lambda: lookup_bags([bag], [(IDS, STARTS)] * (1 + rank)))[0],
        raised(lambda: bag(IDS, STARTS) if rank else super(DistributedEmbeddingBag, bag).forward(IDS))[0],
        raised(lambda: DistributedEmbeddingBag(9, 2, mode="sum" if rank else "mean", process_group=group))[0],
        raised(lambda: DistributedEmbeddingBag(9, 2, mode="median", process_group=group))[0],
        raised(lambda: DistributedEmbeddingBag(9, 2, mode="max", scale_grad_by_freq=True, process_group=group))[0],
    ]


def test_misuse_is_told_on_every_rank(ranks: RankPool):
    for many, short, unlike, other, unknown, scaled in ranks.run(misuse, world_size=2):
        assert many == ("TypeError: an input on rank 1 must be (ids, offsets, per_sample_weights), but has 4 elements")
        assert short == "ValueError: 1 tables need as many tensors of ids, but got 2"
        assert "ExchangeMismatchError" in unlike
        assert "pooled lookup" in unlike
        assert other == "ValueError: mode must be the same on every rank, but is mean on rank 0 and sum on rank 1"
        assert unknown == "ValueError: mode must be one of sum, mean, max, but is 'median'"
        assert scaled == "ValueError: scale_grad_by_freq is for the modes sum and mean, as in nn.EmbeddingBag"
