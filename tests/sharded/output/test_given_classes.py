"""The log-probabilities of given classes of a sharded output layer against log_softmax of the whole logits."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.output.given_classes import given_classes
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, random_rows

V, H, M = 13, 5, 3
TOKENS = [4, 0, 7]  # by rank
FORBIDDEN = [0, 6, 12]


def tables(layout: str, group: dist.ProcessGroup | None) -> tuple[DistributedEmbedding, DistributedEmbedding]:
    options = {"dtype": torch.float64, "layout": layout, "process_group": group}
    return DistributedEmbedding(V + 2, H, seed=7, **options), DistributedEmbedding(V + 2, 1, seed=8, **options)


def inputs(rank: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(V, (TOKENS[rank], M), generator=torch.Generator().manual_seed(rank))
    return random_rows((TOKENS[rank], H), seed=rank), ids


def find(group: dist.ProcessGroup | None, layout: str) -> tuple[Tensor, str]:
    """The answer, and then the error of an id of rank 0 that is none."""
    rank = 0 if group is None else dist.get_rank(group)
    sizes = {"num_classes": V, "chunk_elements": 10}
    found = given_classes(*tables(layout, group), *inputs(rank), FORBIDDEN, **sizes)
    hidden, ids = inputs(rank)
    with pytest.raises(IndexError) as error:
        given_classes(*tables(layout, group), hidden, ids + V * (rank == 0), FORBIDDEN, **sizes)
    return found, str(error.value)


def expected(rank: int) -> Tensor:
    table, bias = (each.weight.detach()[:V] for each in tables("contiguous", None))
    hidden, ids = inputs(rank)
    logits = (hidden @ table.t() + bias[:, 0]).index_fill(1, torch.tensor(FORBIDDEN), -torch.inf)
    return logits.log_softmax(dim=1).gather(1, ids)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_given_classes_have_the_log_probabilities_of_the_whole_logits(ranks: RankPool, layout: str) -> None:
    for results in ([find(None, layout)], ranks.run(find, layout, world_size=3)):
        for rank, (found, error) in enumerate(results):
            torch.testing.assert_close(found, expected(rank), rtol=0, atol=1e-12)
            assert error.endswith(f"is outside [0, {V})")
    assert expected(0).isneginf().any()
    assert expected(0).isfinite().any()
