"""The hypotheses of a batch, step by step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.search.banks import Banks
from dist_s2s.models.search.hypothesis import Hypothesis
from dist_s2s.models.search.ranking import Ranking

# Shapes: B sentences, K beam_size, C candidates of each hypothesis, N hypotheses that go on, T steps so far.


class Beam(NamedTuple):
    """K hypotheses of each sentence. Those that do not exist, where tokens are too few, have a sum of -inf."""

    sums_BK: Tensor  # float64 sum of log-probabilities
    lengths_BK: Tensor  # int64 number of tokens, the end among them
    coverage_BK: Tensor  # float64, what coverage adds to the score
    goes_on_BK: Tensor  # bool, True for those that exist and have not finished

    def computed(self) -> Tensor:
        """Return the numbers, within B·K, of the hypotheses that a step computes."""
        return computed(self.goes_on_BK.flatten())

    def spread(self, values_NC: Tensor, ids_NC: Tensor, hypotheses_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and ids of the candidates of all hypotheses, [B, K, C] each.

        One that has finished has a single candidate, whose id means nothing, with log-probability 0.
        """
        shape = (*self.goes_on_BK.shape, ids_NC.shape[1])
        values_BKC = torch.full(shape, -torch.inf, dtype=torch.float64, device=ids_NC.device)
        ids_BKC = ids_NC.new_zeros(shape)
        values_BKC.flatten(0, 1)[hypotheses_N] = values_NC.double()
        ids_BKC.flatten(0, 1)[hypotheses_N] = ids_NC
        frozen_C = torch.full_like(values_BKC[0, 0], -torch.inf)
        frozen_C[0] = 0.0
        return torch.where(self.goes_on_BK[:, :, None], values_BKC, frozen_C), ids_BKC

    def covering(self, coverage_N: Tensor, hypotheses_N: Tensor) -> "Beam":
        """Return the same with a new coverage of the hypotheses that go on."""
        coverage_BK = self.coverage_BK.clone()
        coverage_BK.flatten()[hypotheses_N] = coverage_N
        return self._replace(coverage_BK=torch.where(self.goes_on_BK, coverage_BK, self.coverage_BK))


def computed(goes_on_M: Tensor) -> Tensor:
    """Return the numbers, int64 [N], of those of M that a step computes: those that go on.

    A rank that has finished goes on with the first one, which counts for nothing.
    """
    numbers_N = goes_on_M.nonzero()[:, 0]
    return numbers_N if len(numbers_N) else numbers_N.new_zeros(1)


class Step(NamedTuple):
    """What a step has made of each beam: the last token of its hypotheses, and which of the beam before they continue.

    Finished ones are continued by end_id, for nothing.
    """

    tokens_BK: Tensor
    parents_BK: Tensor


def first_beam(max_lengths_B: Tensor, beam_size: int) -> Beam:
    """Return the one hypothesis that there is before the first token, of each sentence."""
    shape = (len(max_lengths_B), beam_size)
    sums_BK = torch.full(shape, -torch.inf, dtype=torch.float64, device=max_lengths_B.device)
    sums_BK[:, 0] = 0.0
    goes_on_BK = (sums_BK == 0) & (max_lengths_B > 0)[:, None]
    return Beam(sums_BK, torch.zeros_like(sums_BK, dtype=torch.int64), torch.zeros_like(sums_BK), goes_on_BK)


def grow(
    beam: Beam,
    values_BKC: Tensor,
    ids_BKC: Tensor,
    end_id: int,
    at_limit_B: Tensor,
    ranking: Ranking,
    banks: Banks | None,
) -> tuple[Beam, Step]:
    """Return the K best of a sentence's K·C continuations.

    The continuations of one hypothesis have one length and one coverage, so its K likeliest tokens of those that are
    allowed are all that can be among the best.
    """
    sums_BKC = beam.sums_BK[:, :, None] + values_BKC
    lengths_BK = beam.lengths_BK + beam.goes_on_BK
    scores_BKC = ranking.scores(sums_BKC, lengths_BK[:, :, None], beam.coverage_BK[:, :, None])
    best_BK = scores_BKC.flatten(1).topk(beam.sums_BK.shape[1], dim=1).indices
    if banks is not None:
        banks.choose(best_BK, scores_BKC, ids_BKC, beam.goes_on_BK)
    parents_BK = best_BK // ids_BKC.shape[2]
    is_end_BKC = ~beam.goes_on_BK[:, :, None] | values_BKC.isneginf()
    tokens_BK = ids_BKC.masked_fill(is_end_BKC, end_id).flatten(1).gather(1, best_BK)
    goes_on_BK = beam.goes_on_BK.gather(1, parents_BK) & (tokens_BK != end_id) & ~at_limit_B[:, None]
    if banks is not None:
        banks.follow(parents_BK, tokens_BK, beam.goes_on_BK)
    sums_BK, lengths_BK = sums_BKC.flatten(1).gather(1, best_BK), lengths_BK.gather(1, parents_BK)
    grown = Beam(sums_BK, lengths_BK, beam.coverage_BK.gather(1, parents_BK), goes_on_BK)
    return grown, Step(tokens_BK, parents_BK)


def drop_hopeless(beam: Beam, n_best: int, ranking: Ranking, max_lengths_B: Tensor, banks: Banks | None) -> Beam:
    """Return the beam without the hypotheses that go on, of sentences whose search need not.

    None that goes on can reach the n_best that have finished: whatever comes, these stay the best of the beam.
    Sentences with phrases have another rule: one with all of them has finished, and none with all of them goes on.
    """
    is_done_B = torch.zeros_like(max_lengths_B, dtype=torch.bool)
    if n_best < beam.sums_BK.shape[1]:
        scores_BK = ranking.scores(beam.sums_BK, beam.lengths_BK, beam.coverage_BK)
        worst_B = scores_BK.masked_fill(beam.goes_on_BK, -torch.inf).topk(n_best, dim=1).values[:, -1]
        bounds_BK = ranking.bounds(beam.sums_BK, max_lengths_B).masked_fill(~beam.goes_on_BK, -torch.inf)
        is_done_B = worst_B > bounds_BK.amax(dim=1)
    if banks is not None:
        for sentence in banks.sentences:
            exists, goes_on = beam.sums_BK[sentence] > -torch.inf, beam.goes_on_BK[sentence]
            has_all = goes_on.new_tensor([banks.has_all(sentence, place) for place in range(len(goes_on))])
            is_done_B[sentence] = (has_all & exists & ~goes_on).any() & ~(has_all & goes_on).any()
    is_dropped_BK = beam.goes_on_BK & is_done_B[:, None]
    sums_BK = beam.sums_BK.masked_fill(is_dropped_BK, -torch.inf)
    return beam._replace(sums_BK=sums_BK, goes_on_BK=beam.goes_on_BK & ~is_dropped_BK)


def hypotheses_of(
    beam: Beam, steps: Sequence[Step], end_id: int, max_lengths_B: Tensor, ranking: Ranking
) -> list[list[Hypothesis]]:
    """Return the hypotheses of each sentence, the best first; those that do not exist are left out, but for one."""
    all_scores_BK = ranking.scores(beam.sums_BK, beam.lengths_BK, beam.coverage_BK)
    scores_BK, places_BK = all_scores_BK.sort(dim=1, descending=True, stable=True)
    tokens_TBK = list[Tensor]()
    for step in reversed(steps):
        tokens_TBK.append(step.tokens_BK.gather(1, places_BK))
        places_BK = step.parents_BK.gather(1, places_BK)
    empty_BK0 = places_BK.new_empty(*places_BK.shape, 0)
    tokens_BKT = torch.stack(tokens_TBK[::-1], dim=2) if tokens_TBK else empty_BK0
    return [
        [
            _hypothesis(ids, score, limit, end_id)
            for place, (ids, score) in enumerate(zip(tokens_KT, scores_K, strict=True))
            if not place or score > -torch.inf
        ]
        for tokens_KT, scores_K, limit in zip(
            tokens_BKT.tolist(), scores_BK.tolist(), max_lengths_B.tolist(), strict=True
        )
    ]


def _hypothesis(tokens: list[int], score: float, limit: int, end_id: int) -> Hypothesis:
    """Cut the tokens at ``end_id`` or the maximum length; where no sentence is left there are none."""
    if score == -torch.inf:
        return Hypothesis([], score)
    ids = tokens[:limit]
    ends = end_id in ids
    return Hypothesis(ids[: ids.index(end_id)] if ends else ids, score, is_cut=limit > 0 and not ends)
