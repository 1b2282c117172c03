"""What is wrong on one rank is the same error on every rank."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.output.candidates import draw_candidates
from dist_s2s.sharded.output.sampled_softmax import SampledSoftmaxLoss
from dist_s2s.sharded.tables.lookup import lookup
from tests.rank_pool import RankPool
from tests.sharded.sampled_reference import IGNORED, H, V, tables

WRONG_CALLS = {
    "too large": (
        torch.tensor([[1, 2], [3, 100]]),
        (2, 2, H),
        "IndexError: id 100 at position (1, 1) on rank 1 is outside [0, 100)",
    ),
    "negative": (
        torch.tensor([1, -1]),
        (2, H),
        "IndexError: id -1 at position (1,) on rank 1 is outside [0, 100)",
    ),
    "float": (
        torch.tensor([1.0]),
        (1, H),
        "TypeError: ids on rank 1 must be integers, but their dtype is torch.float32; convert them with .long()",
    ),
    "shape of hidden": (
        torch.tensor([1, 2]),
        (3, H),
        f"ValueError: hidden on rank 1 must have shape (2, {H}), but has (3, {H})",
    ),
    "last dimension of hidden": (
        torch.tensor([1]),
        (1, H + 1),
        f"ValueError: the last dimension of hidden must be the table's embedding_dim {H}, "
        f"but its shape on rank 1 is (1, {H + 1})",
    ),
}


def call_wrongly(group: dist.ProcessGroup, reduction: str, kind: str) -> tuple[str, Tensor]:
    """The error, and the next loss."""
    table, bias = tables(process_group=group)
    loss = SampledSoftmaxLoss(table, bias, num_samples=9, num_classes=100, reduction=reduction)
    good = torch.tensor([0, IGNORED])
    target, shape, _ = WRONG_CALLS[kind] if dist.get_rank(group) == 1 else (good, (2, H), "")
    error = raised(lambda: loss(torch.zeros(shape, dtype=torch.float64), target))
    return error, loss(torch.zeros(2, H, dtype=torch.float64), good).detach()


def raised(call: Callable[[], object]) -> str:
    try:
        call()
    except (IndexError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize("kind", WRONG_CALLS)
def test_a_wrong_call_on_one_rank_is_the_same_error_on_all(ranks: RankPool, kind: str):
    for reduction in ("mean", "sum"):
        results = ranks.run(call_wrongly, reduction, kind, world_size=3)
        assert [error for error, _ in results] == [WRONG_CALLS[kind][2]] * 3
        assert all(torch.equal(value, results[0][1]) for _, value in results)


def look_up_wrong_targets(group: dist.ProcessGroup) -> list[str]:
    """The errors of looking up samples ahead, for targets beyond the classes, beyond the table, negative and float."""
    table, _ = tables(process_group=group)
    loss = SampledSoftmaxLoss(table, num_samples=9, num_classes=100)
    wrong = [torch.tensor([0, 100]), torch.tensor([V]), torch.tensor([-7]), torch.tensor([1.0])]
    good = torch.tensor([0])
    return [raised(lambda t=t: table(loss.sample(t if dist.get_rank(group) == 1 else good).ids)) for t in wrong]


def test_looking_up_a_wrong_target_ahead_raises_on_all_ranks(ranks: RankPool):
    results = ranks.run(look_up_wrong_targets, world_size=2)
    assert results[0] == results[1]
    starts = [f"IndexError: id {V}", f"IndexError: id {2 * V - 100}", "IndexError: id -7", "TypeError: ids on rank 1"]
    assert all(error.startswith(start) for error, start in zip(results[0], starts, strict=True))


def give_wrong_rows(group: dist.ProcessGroup) -> list[str]:
    table, bias = tables(process_group=group)
    loss = SampledSoftmaxLoss(table, bias, num_samples=9)
    sample = loss.sample(torch.tensor([5, 6]))
    rows, bias_rows = lookup([table, bias], [sample.ids, sample.ids])
    right = (torch.zeros(2, H, dtype=torch.float64), sample, rows, bias_rows)
    wrong = [(right[0][:1], *right[1:]), (*right[:2], rows[1:], bias_rows), (*right[:3], rows), right[:3]]
    return [raised(lambda a=a: loss.from_rows(*(a if dist.get_rank(group) == 1 else right))) for a in wrong]


def test_wrong_rows_on_one_rank_are_the_same_error_on_all(ranks: RankPool):
    number = 2 + len(draw_candidates(9, V, None, seed=0, step=0)[0])
    expected = [
        f"hidden on rank 1 must have shape (2, {H}), but has (1, {H})",
        f"rows on rank 1 must have shape ({number}, {H}), but has ({number - 1}, {H})",
        f"bias_rows on rank 1 must have shape ({number}, 1), but has ({number}, {H})",
        "rows on rank 1 came without bias_rows, but the loss has a bias",
    ]
    assert ranks.run(give_wrong_rows, world_size=2) == [[f"ValueError: {text}" for text in expected]] * 2


def test_wrong_rows_raise_for_a_sum_too():
    table, _ = tables()
    loss = SampledSoftmaxLoss(table, num_samples=9, reduction="sum")
    sample = loss.sample(torch.tensor([5]))
    with pytest.raises(ValueError, match="came with bias_rows, but the loss has no bias"):
        loss.from_rows(torch.zeros(1, H), sample, table(sample.ids), torch.zeros(3, 1))


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "num_samples must be at least 1, but is 0": {"num_samples": 0},
    f"num_classes must be within [1, {V}], the table's rows, but is 0": {"num_classes": 0},
    f"num_classes must be within [1, {V}], the table's rows, but is {V + 1}": {"num_classes": V + 1},
    "label_smoothing must be within [0, 1], but is 1.5": {"label_smoothing": 1.5},
    "reduction must be one of mean, sum, but is 'none'": {"reduction": "none"},
    f"frequencies must have shape ({V},), but has (3,)": {"frequencies": torch.ones(3)},
    "frequencies must be finite and not negative, but that of class 1 is -2": {
        "frequencies": torch.tensor([3, -2, 1]),
        "num_classes": 3,
    },
    "frequencies must be finite and not negative, but that of class 2 is inf": {
        "frequencies": torch.tensor([3, 2, math.inf]),
        "num_classes": 3,
    },
    "frequencies must not all be 0": {"frequencies": torch.zeros(V)},
}
DIFFERENT: dict[str, dict[str, Any]] = {
    "num_samples must be the same on every rank, but is 9 on rank 0 and 10 on rank 1": {"num_samples": 10},
    "seed must be the same on every rank, but is 0 on rank 0 and 1 on rank 1": {"seed": 1},
    "reduction must be the same on every rank, but is mean on rank 0 and sum on rank 1": {"reduction": "sum"},
    "the sum of the cumulated frequencies must be the same on every rank, but is None on rank 0 and 8646.0 on rank 1": {
        "frequencies": torch.ones(V)
    },
}


def build_wrongly(group: dist.ProcessGroup) -> list[str]:
    table, _ = tables(process_group=group)
    rank = dist.get_rank(group)
    return [
        raised(lambda s=s: SampledSoftmaxLoss(table, **{"num_samples": 9, **(s if rank == 1 else {})}))
        for s in (*IMPOSSIBLE.values(), *DIFFERENT.values())
    ]


def test_wrong_settings_on_one_rank_are_the_same_error_on_all(ranks: RankPool):
    expected = [f"ValueError: {text}" for text in (*IMPOSSIBLE, *DIFFERENT)]
    assert ranks.run(build_wrongly, world_size=2) == [expected] * 2


def test_the_bias_must_fit_the_table():
    table, _ = tables()
    with pytest.raises(ValueError, match=f"bias must be a table of {V} × 1, but is one of {V} × 2"):
        SampledSoftmaxLoss(table, DistributedEmbedding(V, 2), num_samples=9)
