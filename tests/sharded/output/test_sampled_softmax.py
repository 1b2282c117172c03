"""Sampled softmax: exact when every class is drawn, near it on average when not, the same on any number of ranks."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.output.candidates import draw_candidates
from dist_s2s.sharded.output.sampled_softmax import SampledSoftmaxLoss
from dist_s2s.sharded.tables.lookup import lookup
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, random_ids, random_rows
from tests.sharded.sampled_reference import (
    EVERY_CLASS,
    IGNORED,
    Case,
    Gradients,
    H,
    V,
    check_equal,
    gradients,
    run_steps,
    tables,
    targets,
)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_with_every_class_drawn_it_is_cross_entropy(ranks: RankPool, world_size: int):
    cases = [
        Case(target, {"num_samples": EVERY_CLASS, "label_smoothing": smoothing}, layout, with_bias)
        for target in targets(world_size)
        for smoothing in (0.0, 0.1)
        for layout, with_bias in zip(LAYOUTS, (True, False), strict=True)
    ]
    for case, results in zip(cases, zip(*ranks.run(run_steps, cases, world_size=world_size), strict=True), strict=True):
        check_equal(results, case, None)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_with_some_drawn_it_is_the_same_estimate_at_every_world_size(ranks: RankPool, world_size: int):
    cases = [
        Case(target, {"num_samples": 40, "label_smoothing": smoothing, "seed": 5}, layout, steps=3)
        for target in targets(world_size)
        for smoothing, layout in zip((0.0, 0.1), LAYOUTS, strict=True)
    ]
    candidates = draw_candidates(40, V, None, seed=5, step=2)
    assert 10 < len(candidates[0]) < 40  # drawn with replacement
    for case, results in zip(cases, zip(*ranks.run(run_steps, cases, world_size=world_size), strict=True), strict=True):
        check_equal(results, case, candidates)


def run_on_a_mesh(_: dist.ProcessGroup, case: Case) -> Gradients:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return gradients(case.loss(device_mesh=mesh), case, dist.get_rank())


def test_replicas_share_the_mean(ranks: RankPool):
    case = Case(targets(4)[3], {"num_samples": 40})
    results = ranks.run(run_on_a_mesh, case)
    for shard in (0, 1):
        assert torch.equal(results[shard][2], results[shard + 2][2])  # its replica
    check_equal(results, case, draw_candidates(40, V, None, seed=0, step=0), num_shards=2)


def run_empty(group: dist.ProcessGroup) -> list[Gradients]:
    none, size = torch.zeros(0, dtype=torch.int64), dist.get_world_size(group)
    return run_steps(group, [Case([none] * size, {"num_samples": 9, "reduction": kind}) for kind in ("mean", "sum")])


def test_without_any_target_gradients_are_zero(ranks: RankPool):
    for (mean, *of_mean), (total, *of_total) in ranks.run(run_empty, world_size=2):
        assert mean.isnan()  # as F.cross_entropy
        assert total == 0
        assert not any(gradient.any() for gradient in (*of_mean, *of_total))


def test_sum_adds_the_losses_of_one_rank():
    target = torch.tensor([3, IGNORED, 77, 3])
    mean, total = (
        run_steps(None, [Case([target], {"num_samples": 20, "reduction": kind})])[0] for kind in ("mean", "sum")
    )
    for ours, theirs in zip(mean, total, strict=True):
        torch.testing.assert_close(3 * ours, theirs, rtol=0, atol=1e-9)


def test_a_candidate_that_is_the_target_does_not_count_twice():
    table, bias = tables()
    loss = SampledSoftmaxLoss(table, bias, num_samples=7, num_classes=1, label_smoothing=0.1)
    hidden = random_rows((3, H), seed=0).requires_grad_()
    value = loss(hidden, torch.zeros(3, dtype=torch.int64))  # the only class is sure to be drawn
    value.backward()
    assert value.abs() < 1e-12
    assert hidden.grad is not None
    assert hidden.grad.abs().max() < 1e-12


def test_rows_that_pad_the_table_are_never_classes():
    case = Case(
        [random_ids(100, (9,), seed=0)], {"num_samples": EVERY_CLASS, "num_classes": 100, "label_smoothing": 0.1}
    )
    loss, _, table_gradient, bias_gradient = run_steps(None, [case])[0]
    table, bias = tables()
    logits = case.hidden[0] @ table.weight[:100].t() + bias.weight[:100].t()
    expected = F.cross_entropy(logits, case.target[0], label_smoothing=0.1)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-9)
    assert not table_gradient[100:].any()
    assert bias_gradient is not None
    assert bias_gradient[:100].all()
    assert not bias_gradient[100:].any()


def sample_on(group: dist.ProcessGroup) -> list[list[int]]:
    """Candidates of steps 0 and 1 by the counter, of both again by name, and of another seed."""
    target = torch.full((dist.get_rank(group),), 3)
    table, _ = tables(process_group=group)
    loss, other = (SampledSoftmaxLoss(table, num_samples=30, seed=seed) for seed in (0, 1))
    samples = [
        loss.sample(target),
        loss.sample(target),
        loss.sample(target, 0),
        loss.sample(target, 1),
        other.sample(target),
    ]
    return [sample.ids[sample.num_targets :].tolist() for sample in samples]


def test_all_ranks_draw_the_same_candidates_and_each_step_others(ranks: RankPool):
    results = ranks.run(sample_on, world_size=3)
    assert results[0] == results[1] == results[2]
    first, second, first_again, second_again, other_seed = results[0]
    assert (first, second) == (first_again, second_again)
    assert len({tuple(ids) for ids in (first, second, other_seed)}) == 3


def gradient_rows(group: dist.ProcessGroup, target: list[Tensor]) -> tuple[list[int], list[int]]:
    """Global ids of the rows with a gradient in table and bias."""
    rank, (table, bias) = dist.get_rank(group), tables(process_group=group)
    mine = target[rank]
    SampledSoftmaxLoss(table, bias, num_samples=10)(random_rows((len(mine), H), seed=rank), mine).backward()
    rows = []
    for part in (table, bias):
        assert part.weight.grad is not None
        rows.append((part.weight.grad.indices()[0] + part.partition.offset(rank)).tolist())
    return rows[0], rows[1]


def test_only_targets_and_candidates_have_gradients(ranks: RankPool):
    target = [torch.tensor([60, IGNORED, 130]), torch.tensor([61])]
    results = ranks.run(gradient_rows, target, world_size=2)
    candidates, _ = draw_candidates(10, V, None, seed=0, step=0)
    for part in zip(*results, strict=True):
        assert part[0] + part[1] == sorted({60, 130, 61, *candidates.tolist()})


def test_classes_without_frequency_are_only_ever_targets():
    frequencies = torch.ones(V)
    frequencies[1::2] = 0
    target = torch.tensor([4, 7, 7])
    case = Case([target], {"num_samples": EVERY_CLASS, "frequencies": frequencies})
    loss, _, table_gradient, _ = run_steps(None, [case])[0]
    table, bias = tables()
    logits = case.hidden[0] @ table.weight.t() + bias.weight.t()
    never = (frequencies == 0).repeat(3, 1)
    never[range(3), target] = False  # but each for itself
    expected = F.cross_entropy(logits.masked_fill(never, -math.inf), target)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-9)
    assert table_gradient[1::2].any(dim=1).nonzero().tolist() == [[3]]  # class 7


def look_up_ahead(group: dist.ProcessGroup, target: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Loss and gradient of hidden, from one call and from rows that were looked up together with other tables'."""
    rank, results = dist.get_rank(group), []
    for reduction in ("mean", "sum"):
        table, bias = tables(process_group=group)
        inputs = DistributedEmbedding(V, 3, dtype=torch.float64, process_group=group)
        loss = SampledSoftmaxLoss(table, bias, num_samples=25, label_smoothing=0.1, reduction=reduction)
        for ahead in (False, True):
            hidden = random_rows((*target[rank].shape, H), seed=rank).requires_grad_()
            if ahead:
                sample = loss.sample(target[rank], step=0)
                _, rows, bias_rows = lookup([inputs, table, bias], [target[rank].clamp(min=0), sample.ids, sample.ids])
                value = loss.from_rows(hidden, sample, rows, bias_rows)
            else:
                value = loss(hidden, target[rank])
            value.backward()
            assert hidden.grad is not None
            results.append((value.detach(), hidden.grad))
    return results


def test_rows_may_be_looked_up_ahead(ranks: RankPool):
    for at_once, ahead, sum_at_once, sum_ahead in ranks.run(look_up_ahead, targets(2)[1], world_size=2):
        for ours, theirs in zip((*at_once, *sum_at_once), (*ahead, *sum_ahead), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("way", ["bfloat16 hidden", "autocast", "bfloat16 table"])
def test_reduced_precision(way: str):
    settings: dict[str, Any] = {"num_samples": 60, "label_smoothing": 0.1}
    case = Case(targets(1)[0], settings)
    expected, expected_gradient, *_ = run_steps(None, [case])[0]
    table, bias = tables(dtype=torch.bfloat16 if way == "bfloat16 table" else torch.float32)
    hidden = case.hidden[0].to(torch.bfloat16 if way == "bfloat16 hidden" else torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        loss = SampledSoftmaxLoss(table, bias, **settings)(hidden, case.target[0])
    loss.backward()
    assert loss.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == hidden.dtype
    assert table.weight.grad is not None
    assert table.weight.grad.dtype == table.weight.dtype
    assert 0 < (loss.detach() - expected).abs() < 0.02
    assert (hidden.grad - expected_gradient).norm() < 0.02 * expected_gradient.norm()


def test_classes_grow_with_the_table_unless_their_frequencies_are_known():
    for settings, num_classes in (({}, 2 * V), ({"num_classes": 100}, 100), ({"frequencies": torch.ones(V)}, V)):
        table, _ = tables()
        loss = SampledSoftmaxLoss(table, num_samples=EVERY_CLASS, **settings)
        table.grow(2 * V)
        assert loss.num_classes == num_classes
        assert loss.sample(torch.tensor([0])).ids.max() == num_classes - 1


def test_repr_tells_the_settings():
    table, _ = tables()
    loss = SampledSoftmaxLoss(table, num_samples=9, frequencies=torch.ones(V))
    assert f"9 frequency-based samples of {V} classes, reduction=mean" in repr(loss)
