"""What VocabParallelCrossEntropy refuses: with the same error on every rank, after which the group is in order."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference_cross_entropy import Case, H, V, targets_of


def make_mistakes(group: dist.ProcessGroup, mistakes: list[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Error and message for each mistake, which rank 1 makes; a good loss follows, so the group must be in order."""
    rank, messages = dist.get_rank(group), []
    right = torch.zeros(2, 3, H, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.int64)
    output = Case([right[1]] * 3).build(group)
    expected = float(output(*right))
    for mistake in mistakes:
        with pytest.raises((IndexError, TypeError, ValueError)) as error:
            output(*(mistake if rank == 1 else right))
        messages.append((type(error.value).__name__, str(error.value)))
        assert float(output(*right)) == expected
    return messages


def test_a_mistake_on_one_rank_is_the_same_error_on_every_rank(ranks: RankPool) -> None:
    hidden, target = torch.zeros(2, 3, H, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.int64)
    wrong = target.clone()
    wrong[1, 2] = V
    mistakes = {
        ("TypeError", "hidden on rank 1 must be a tensor, but is a list"): ([1.0], target),
        ("TypeError", "hidden on rank 1 must be floating-point, but its dtype is torch.int64"): (hidden.long(), target),
        (
            "ValueError",
            f"the last dimension of hidden must be the table's embedding_dim {H}, but its shape on rank 1 is (2, 3, 4)",
        ): (hidden[..., :4], target),
        (
            "TypeError",
            "target on rank 1 must be a tensor of int64, but its dtype is torch.int32",
        ): (hidden, target.int()),
        ("TypeError", "target on rank 1 must be a tensor of int64, but is a NoneType"): (hidden, None),
        (
            "ValueError",
            "target must have the shape and device of hidden without its last dimension, but on rank 1 they are (6,) "
            f"on cpu and (2, 3, {H}) on cpu",
        ): (hidden, target.flatten()),
        ("IndexError", f"target {V} at position (1, 2) on rank 1 is outside [0, {V})"): (hidden, wrong),
        ("IndexError", f"target -1 at position (0, 0) on rank 1 is outside [0, {V})"): (hidden, target - 1),
        (
            "ValueError",
            "the dtype of matrix products must be the same on every rank, but is torch.float64 on rank 0 and "
            "torch.float32 on rank 1",
        ): (hidden.float(), target),
    }
    assert ranks.run(make_mistakes, list(mistakes.values()), world_size=3) == [list(mistakes)] * 3


def scale_differently(group: dist.ProcessGroup, targets: list[Tensor]) -> list[str]:
    rank = dist.get_rank(group)
    output, hidden = Case(targets).build(group), Case(targets).hidden(rank)
    with pytest.raises(ValueError, match="must be the same") as unequal:
        (output(hidden, targets[rank]) * (1 if rank < 2 else 0.5)).backward()
    assert hidden.grad is None
    loss = output(hidden, targets[rank])
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can run only once"):
        loss.backward()
    with pytest.raises(ValueError, match="is_grad_enabled") as disabled, torch.set_grad_enabled(rank == 0):
        output(hidden, targets[rank])
    return [str(unequal.value), str(disabled.value)]


def test_losses_must_be_scaled_equally(ranks: RankPool) -> None:
    messages = [
        "the gradient of the loss must be the same on every rank, but is 1 on rank 0 and 0.5 on rank 2; scale the loss "
        "equally on all ranks",
        "torch.is_grad_enabled() must be the same on every rank, but is True on rank 0 and False on rank 1",
    ]
    assert ranks.run(scale_differently, targets_of(3, V, (4,)), world_size=3) == [messages] * 3


def build_differently(group: dist.ProcessGroup) -> str:
    table = DistributedEmbedding(V, H, process_group=group)
    with pytest.raises(ValueError, match="must be the same") as error:
        VocabParallelCrossEntropy(table, chunk_elements=1 + dist.get_rank(group))
    return str(error.value)


def test_settings_that_differ_are_refused_on_every_rank(ranks: RankPool) -> None:
    message = "chunk_elements must be the same on every rank, but is 1 on rank 0 and 2 on rank 1"
    assert ranks.run(build_differently, world_size=2) == [message] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": V + 1}, f"num_classes must be within [1, {V}], but is {V + 1}"),
        ({"num_classes": 0}, f"num_classes must be within [1, {V}], but is 0"),
        ({"label_smoothing": 1.5}, "label_smoothing must be within [0, 1], but is 1.5"),
        ({"reduction": "none"}, "reduction must be mean or sum, but is 'none'"),
        ({"chunk_elements": 0}, "chunk_elements must be at least 1, but is 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        VocabParallelCrossEntropy(DistributedEmbedding(V, H), **settings)
    assert str(error.value) == message


def test_bias_must_fit_the_table() -> None:
    for bias in (
        DistributedEmbedding(V, 2),
        DistributedEmbedding(V + 1, 1),
        DistributedEmbedding(V, 1, layout="round_robin"),
    ):
        with pytest.raises(ValueError, match="the bias must have one column and the table's partition"):
            VocabParallelCrossEntropy(DistributedEmbedding(V, H), bias)
