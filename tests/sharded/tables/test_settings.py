"""What a table is built with: the same on all ranks, possible, and shown by print."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding
from tests.rank_pool import RankPool

V, D = 131, 5

MISMATCHES = {
    "num_embeddings": ({"num_embeddings": V}, {"num_embeddings": V + 1}),
    "embedding_dim": ({"embedding_dim": D}, {"embedding_dim": D + 1}),
    "dtype": ({"dtype": torch.float32}, {"dtype": torch.float64}),
    "layout": ({"layout": "contiguous"}, {"layout": "round_robin"}),
    "padding_idx": ({"padding_idx": None}, {"padding_idx": 0}),
    "max_norm": ({"max_norm": None}, {"max_norm": 1.0}),
    "norm_type": ({"norm_type": 2.0}, {"norm_type": 1.0}),
    "scale_grad_by_freq": ({"scale_grad_by_freq": False}, {"scale_grad_by_freq": True}),
    "grad_reduction": ({"grad_reduction": "mean"}, {"grad_reduction": "sum"}),
    "comm_dtype": ({"comm_dtype": None}, {"comm_dtype": torch.float16}),
    "init_std": ({"init_std": 1.0}, {"init_std": 0.5}),
    "transport": ({"transport": "auto"}, {"transport": "collective"}),
    "deduplicate": ({"deduplicate": True}, {"deduplicate": False}),
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
        ({"transport": "mail"}, "transport must be one of auto, collective, shared_memory, but is 'mail'"),
        ({"padding_idx": V}, f"padding_idx {V} is outside [-{V}, {V})"),
        ({"padding_idx": -V - 1}, f"padding_idx {-V - 1} is outside [-{V}, {V})"),
        ({"layout": "striped"}, "layout must be one of contiguous, round_robin, but is 'striped'"),
        ({"grad_reduction": "max"}, "grad_reduction must be mean or sum, but is 'max'"),
        (
            {"dtype": torch.int64},
            "dtype must be one of torch.float32, torch.float64, torch.bfloat16, but is torch.int64",
        ),
        ({"max_norm": 0.0}, "max_norm must be positive, but is 0.0"),
        ({"init_std": -0.5}, "init_std must not be negative, but is -0.5"),
        (
            {"comm_dtype": torch.float64},
            "comm_dtype must be one of None, torch.bfloat16, torch.float16, but is torch.float64",
        ),
        ({"num_embeddings": 0}, f"num_embeddings and embedding_dim must be positive, but are 0 and {D}"),
        ({"embedding_dim": 0}, f"num_embeddings and embedding_dim must be positive, but are {V} and 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=r"must|outside") as error:
        DistributedEmbedding(**{"num_embeddings": V, "embedding_dim": D, **settings})
    assert str(error.value) == message


def use_default_group(group: dist.ProcessGroup) -> tuple[bool, Tensor, str]:
    table = DistributedEmbedding(V, D, seed=7, transport="collective")
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
        assert text == (
            f"DistributedEmbedding({V}, {D}, layout=contiguous, transport=collective, "
            f"rank {rank} of 4 holds {rows} rows)"
        )


def test_print_shows_what_is_unusual():
    usual = f"layout=contiguous, transport=local, rank 0 of 1 holds {V} rows)"
    assert repr(DistributedEmbedding(V, D)) == f"DistributedEmbedding({V}, {D}, {usual}"
    settings = {"padding_idx": -1, "max_norm": 2.5, "norm_type": 1.0, "scale_grad_by_freq": True}
    shown = "padding_idx=130, max_norm=2.5, norm_type=1.0, scale_grad_by_freq=True, comm_dtype=torch.float16"
    table = DistributedEmbedding(V, D, **settings, comm_dtype=torch.float16, deduplicate=False)
    assert repr(table) == f"DistributedEmbedding({V}, {D}, {shown}, deduplicate=False, {usual}"


def belong_to_another_group(group: dist.ProcessGroup) -> str:
    """Only rank 0 is a member of the table's group."""
    first = dist.new_group([0])
    if dist.get_rank() == 0:
        return repr(DistributedEmbedding(V, D, process_group=first))
    with pytest.raises(ValueError, match="not a member") as error:
        DistributedEmbedding(V, D, process_group=first)
    return str(error.value)


def test_a_rank_outside_of_the_group_is_refused(ranks: RankPool):
    outside = [f"rank {rank} is not a member of the table's process group" for rank in (1, 2, 3)]
    assert ranks.run(belong_to_another_group) == [repr(DistributedEmbedding(V, D)), *outside]
