"""Clipping by value, of all shards and of the replicated parameters."""

import math
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dist_s2s.sharded.clip import clip_grad_value_
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, TRANSPORTS, assemble, random_ids
from tests.sharded.test_clip import SPOILT, D, V, gradients_of, loss_of, make_core, make_tables, spoil_and_clip


def clip_by_value(
    group: dist.ProcessGroup, clip_values: list[float], ids: list[Tensor], dense: bool, transport: str
) -> tuple[list[Tensor], list[tuple[float, list[Tensor]]]]:
    """Shards of two tables, and for each clip_value the largest magnitude and the gradients after it."""
    tables, results = make_tables(group, group, transport), []
    for clip_value in clip_values:
        core = make_core()
        for table in tables:
            table.weight.grad = None
            loss_of(table(ids[dist.get_rank(group)])).backward()
        if dense:
            tables[1].weight.grad = tables[1].weight.grad.to_dense()
        largest = clip_grad_value_(core, tables, clip_value)
        assert largest.dtype == torch.float64
        results.append((largest.item(), gradients_of(core, tables)))
    return [table.weight.detach() for table in tables], results


def clip_unsharded_by_value(weights: list[Tensor], clip_value: float, ids: list[Tensor]) -> tuple[float, list[Tensor]]:
    core = make_core()
    tables = nn.ModuleList(nn.Embedding(V, D, _weight=weight.clone()) for weight in weights)
    for table in tables:
        sum((loss_of(table(mine)) for mine in ids), torch.zeros(())).div(len(ids)).backward()
    parameters = [*core.parameters(), *tables.parameters()]
    largest = max(parameter.grad.abs().max().item() for parameter in parameters)
    nn.utils.clip_grad_value_(parameters, clip_value)
    return largest, [parameter.grad for parameter in parameters]


@pytest.mark.parametrize(
    ("world_size", "dense", "transport"), [(1, False, "auto"), *((3, True, t) for t in TRANSPORTS)]
)
def test_clipping_by_value_equals_that_of_the_unsharded_model(
    ranks: RankPool, world_size: int, dense: bool, transport: str
):
    clip_values = [0.0, 0.3, 1e6, math.inf]
    ids = [random_ids(V, (rank * 8,), seed=rank) for rank in range(1, world_size)] + [torch.arange(40)]
    answers = ranks.run(clip_by_value, clip_values, ids, dense, transport, world_size=world_size)
    shards, results = zip(*answers, strict=True)
    weights = [assemble(table, layout) for table, layout in zip(zip(*shards, strict=True), LAYOUTS, strict=True)]
    for clip_value, clipped in zip(clip_values, zip(*results, strict=True), strict=True):
        largest, expected = clip_unsharded_by_value(weights, clip_value, ids)
        magnitudes, gradients = zip(*clipped, strict=True)
        assert set(magnitudes) == {magnitudes[0]}
        assert magnitudes[0] == pytest.approx(largest, rel=1e-12)
        first, second = zip(*(after[2:] for after in gradients), strict=True)
        actual = [*gradients[0][:2], assemble(first, LAYOUTS[0]), assemble(second, LAYOUTS[1])]
        for gradient, reference in zip(actual, expected, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


def spoil_and_clip_by_value(
    group: dist.ProcessGroup, spoilt: dict[int, str], value: float, raise_error: bool
) -> tuple[float, bool]:
    with patch("tests.sharded.test_clip.clip_grad_norm_", clip_grad_value_):
        return spoil_and_clip(group, spoilt, value, raise_error)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize(("spoilt", "culprit"), SPOILT, ids=str)
def test_all_ranks_learn_of_what_cannot_be_clipped_by_value(
    ranks: RankPool, spoilt: dict[int, str], culprit: str, value: float
):
    for largest, kept in ranks.run(spoil_and_clip_by_value, spoilt, value, False, world_size=3):
        assert math.isnan(largest)
        assert kept
    errors = ranks.run_expecting_errors(spoil_and_clip_by_value, spoilt, value, True, world_size=3)
    assert {(error.type_name, error.message) for error in errors} == {
        (
            "RuntimeError",
            f"the gradient of a {culprit} is not finite; the gradients were left as they were: skip this step on every "
            "rank, or lower the learning rate",
        )
    }


@pytest.mark.parametrize("clip_value", [-1.0, math.nan])
def test_a_negative_clip_value_is_refused(clip_value: float):
    with pytest.raises(ValueError, match=rf"^clip_value must not be negative, but is {clip_value}$"):
        clip_grad_value_([], [], clip_value)
