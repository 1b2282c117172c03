"""The k likeliest classes of a sharded output layer, and all, against log_softmax and topk of the whole logits."""

from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.sharded.output.cross_entropy import VocabParallelCrossEntropy
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, assemble, random_rows

V, H = 131, 5


@dataclass(frozen=True)
class Case:
    """shapes: of hidden's leading dimensions, by rank."""

    shapes: list[tuple[int, ...]]
    k: int
    forbidden: tuple[int, ...] = ()
    num_embeddings: int = V
    num_classes: int | None = None
    layout: str = "contiguous"
    has_bias: bool = True

    def hidden(self, rank: int) -> Tensor:
        return random_rows((*self.shapes[rank % len(self.shapes)], H), seed=rank)

    def build(self, group: dist.ProcessGroup | None) -> VocabParallelCrossEntropy:
        options = {"dtype": torch.float64, "layout": self.layout, "process_group": group}
        table = DistributedEmbedding(self.num_embeddings, H, seed=7, **options)
        bias = DistributedEmbedding(self.num_embeddings, 1, seed=8, **options) if self.has_bias else None
        return VocabParallelCrossEntropy(table, bias, num_classes=self.num_classes, chunk_elements=150)


def choose(group: dist.ProcessGroup | None, cases: list[Case]) -> list[tuple[Tensor, ...]]:
    """For each case log-probabilities, ids, log-probabilities of all classes, and the shards of weight and bias."""
    rank, results = 0 if group is None else dist.get_rank(group), []
    for case in cases:
        output = case.build(group)
        hidden = case.hidden(rank).requires_grad_()
        found = (*output.top_k(hidden, case.k, case.forbidden), output.log_probabilities(hidden, case.forbidden))
        weight = output.table.weight.detach()
        results.append(
            (*found, weight, torch.zeros(len(weight), 1) if output.bias is None else output.bias.weight.detach())
        )
    return results


def compare(case: Case, results: list[tuple[Tensor, ...]]) -> None:
    weight = assemble([result[3] for result in results], case.layout)[: case.num_classes]
    bias = assemble([result[4] for result in results], case.layout)[: case.num_classes, 0]
    width = min(case.k, len(weight) - len(set(case.forbidden)))
    for rank, (log_probabilities, ids, of_all, *_) in enumerate(results):
        hidden = case.hidden(rank)
        logits = (hidden @ weight.t() + bias).index_fill(
            -1, torch.tensor(case.forbidden, dtype=torch.int64), -torch.inf
        )
        torch.testing.assert_close(of_all, logits.log_softmax(dim=-1), rtol=0, atol=1e-9)
        assert not of_all.requires_grad
        expected, expected_ids = logits.log_softmax(dim=-1).topk(width, dim=-1)
        assert log_probabilities.shape == ids.shape == (*hidden.shape[:-1], case.k)
        assert not log_probabilities.requires_grad
        assert ids.dtype == torch.int64
        torch.testing.assert_close(log_probabilities[..., :width], expected, rtol=0, atol=1e-9)
        assert torch.equal(ids[..., :width], expected_ids)
        assert bool((log_probabilities[..., width:] == -torch.inf).all())
        assert bool(((ids >= 0) & (ids < len(weight))).all())


def all_cases() -> list[Case]:
    uneven = [(4, 3), (0,), (17,), ()]
    cases = []
    for layout in LAYOUTS:
        for k in (1, 5, V, V + 3):
            for forbidden in ((), (0, V - 1, 64, 64), tuple(range(40))):  # the last: a whole shard of four
                cases.append(Case(uneven, k, forbidden, layout=layout))
        cases += [
            Case([(0,)], 2, layout=layout),
            Case([(3,)], 2, tuple(range(V - 1)), layout=layout),  # one is left
            Case(uneven, 4, (1,), 140, V, layout),
            Case(uneven, 4, num_embeddings=2, layout=layout, has_bias=False),
        ]
    return cases


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_likeliest_classes_are_those_of_the_whole_logits(ranks: RankPool, world_size: int) -> None:
    cases = all_cases()
    results = ranks.run(choose, cases, world_size=world_size)
    for case, result in zip(cases, zip(*results, strict=True), strict=True):
        compare(case, list(result))


def test_without_a_group() -> None:
    for case, result in zip(all_cases(), choose(None, all_cases()), strict=True):
        compare(case, [result])


def choose_among_equals(group: dist.ProcessGroup, layout: str) -> list[int]:
    return Case([], V, layout=layout, has_bias=False).build(group).top_k(torch.zeros(H), V)[1].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_equally_likely_classes_the_lower_id_comes_first(ranks: RankPool, layout: str) -> None:
    assert ranks.run(choose_among_equals, layout, world_size=3) == [list(range(V))] * 3


def choose_in_bfloat16(group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    output = VocabParallelCrossEntropy(DistributedEmbedding(V, H, seed=7, process_group=group))
    return output.top_k(torch.eye(H).bfloat16(), 2)


def test_log_probabilities_are_float32(ranks: RankPool) -> None:
    logits = DistributedEmbedding(V, H, seed=7).weight.detach().t()
    expected, expected_ids = logits.log_softmax(dim=-1).topk(2, dim=-1)
    for log_probabilities, ids in ranks.run(choose_in_bfloat16, world_size=2):
        assert log_probabilities.dtype == torch.float32
        torch.testing.assert_close(log_probabilities, expected, rtol=0, atol=0.02)
        assert torch.equal(ids, expected_ids)


def make_mistakes(group: dist.ProcessGroup, mistakes: list[tuple[Tensor, int, list[int]]]) -> list[str]:
    """The message for each mistake, which rank 1 makes; a good call follows, so the group must be in order."""
    rank, messages = dist.get_rank(group), []
    right = torch.zeros(2, H, dtype=torch.float64), 3, [0]
    output = Case([], 3).build(group)
    for mistake in mistakes:
        with pytest.raises((IndexError, TypeError, ValueError)) as error:
            output.top_k(*(mistake if rank == 1 else right))
        messages.append(f"{type(error.value).__name__}: {error.value}")
        assert output.top_k(*right)[0].shape == (2, 3)
    return messages


def test_a_mistake_on_one_rank_is_the_same_error_on_every_rank(ranks: RankPool) -> None:
    hidden = torch.zeros(2, H, dtype=torch.float64)
    mistakes = {
        "TypeError: hidden on rank 1 must be floating-point, but its dtype is torch.int64": (hidden.long(), 3, [0]),
        "ValueError: k must be a whole number of at least 1, but is 0 on rank 1": (hidden, 0, [0]),
        "ValueError: k must be the same on every rank, but is 3 on rank 0 and 4 on rank 1": (hidden, 4, [0]),
        "ValueError: forbidden must be the same on every rank, but is [0] on rank 0 and [1, 2] on rank 1": (
            hidden,
            3,
            [2, 1],
        ),
        f"IndexError: forbidden id {V} on rank 1 is outside [0, {V})": (hidden, 3, [0, V]),
        f"ValueError: forbidden on rank 1 holds all {V} classes; at least one must be allowed": (
            hidden,
            3,
            list(range(V)),
        ),
    }
    assert ranks.run(make_mistakes, list(mistakes.values()), world_size=3) == [list(mistakes)] * 3
