"""Translations by retrieval: which row of the target is closest to a mapped row of the source, over all ranks.

Scores are as exact as the dtype of the rows; rows of equal scores go by id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dist_s2s.analysis.alignment.dictionary import Pairs
from dist_s2s.analysis.alignment.normalizing import all_blocks
from dist_s2s.analysis.neighbours import Neighbours
from dist_s2s.analysis.rows import TableRows, places_of

_QUERIES_AT_A_TIME = 1 << 11
_PRODUCTS_AT_A_TIME = 1 << 21


@dataclass(frozen=True)
class Sample:
    """A random part of all pairs of words, the same at any number of ranks.

    A pair is in it if the sum of the random numbers of its words lies in a range, modulo 2³²: each pair with the same
    chance, and independently of any other pair of one of its words.

    Attributes:
        share: of the pairs.
        seed: of the numbers.
    """

    share: float
    seed: int

    def of(self, source: int, target: int) -> tuple[Tensor, Tensor]:
        """Return the numbers of the words of both sides, int32 [source] and [target]."""
        generator = torch.Generator().manual_seed(self.seed)
        a, b = (
            torch.randint(-(2**31), 2**31, (count,), generator=generator, dtype=torch.int32)
            for count in (source, target)
        )
        return a, b

    @property
    def bound(self) -> int:
        """Sums up to here are in it."""
        return int(self.share * 2**32) - 2**31 - 1


class Translations:
    """Mapped rows of the source and rows of the target, to be compared. All methods are collective.

    Args:
        source: mapped.
        target: of as many numbers. Rows of zeros are nobody's translation, on both sides.
    """

    def __init__(self, source: TableRows, target: TableRows) -> None:
        self.source, self.target = source, target
        self._sources, self._targets = Neighbours(source), Neighbours(target)

    @cached_property
    def source_similarities(self) -> Tensor:
        """Mean cosines of this rank's source rows with their 10 nearest of the target, float64 [rows]."""
        return self._sources.mean_similarities(self._targets)

    @cached_property
    def target_similarities(self) -> Tensor:
        """Mean cosines of this rank's target rows with their 10 nearest of the source, float64 [rows]."""
        return self._targets.mean_similarities(self._sources)

    @cached_property
    def mean_similarity(self) -> float:
        """The mean of all of them: how close the two sides are to each other, without a dictionary."""
        parts = self.source_similarities, self.target_similarities
        total, count = (sum(part.sum() for part in parts), sum((part != 0).sum() for part in parts))
        of_all = self.source.sum(torch.stack((torch.as_tensor(total), torch.as_tensor(count).double())))
        return float(of_all[0] / of_all[1].clamp(min=1))

    def best_targets(self, sample: Sample | None = None) -> tuple[Tensor, Tensor]:
        """Return for each source id that of the best target by CSLS, int64 [source rows], and its score but for r(x).

        Args:
            sample: of the pairs that may be chosen; None for all. Where there is no pair, the id is -1.
        """
        numbers = None if sample is None else sample.of(self.source.num_rows, self.target.num_rows)
        return _best(self.source, self._targets, self.target_similarities, sample, numbers)

    def best_sources(self, sample: Sample | None = None) -> Tensor:
        """Return for each target id that of the best source, int64 [target rows], as ``best_targets``."""
        numbers = None if sample is None else sample.of(self.source.num_rows, self.target.num_rows)[::-1]
        return _best(self.target, self._sources, self.source_similarities, sample, numbers)[0]

    def mutual(self) -> tuple[Pairs, list[float]]:
        """Return the pairs of ids that are each other's best by CSLS, by source id, and their scores."""
        (targets, scores), sources = self.best_targets(), self.best_sources()
        own = torch.zeros(self.source.num_rows, dtype=torch.float64)
        own[torch.cat([ids for ids, _ in self.source.blocks()] or [torch.empty(0, dtype=torch.int64)])] = (
            self.source_similarities
        )
        [chosen] = ((targets >= 0) & (sources[targets] == torch.arange(len(targets)))).nonzero(as_tuple=True)
        pairs = zip(chosen.tolist(), targets[chosen].tolist(), strict=True)
        return list(pairs), (scores - self.source.sum(own))[chosen].tolist()

    def ranks(self, pairs: Pairs, *, csls: bool) -> dict[int, int]:
        """Return for each source id of some pairs the rank, from 1 on, of the best of its targets among all.

        Args:
            pairs: ids, the same on every rank.
            csls: by CSLS; else by cosine.
        """
        scales = self.target_similarities if csls else None
        words, found = sorted({source for source, _ in pairs}), dict[int, int]()
        for start in range(0, len(words), _QUERIES_AT_A_TIME):
            some = words[start : start + _QUERIES_AT_A_TIME]
            place = {word: number for number, word in enumerate(some)}
            wanted = torch.tensor(
                [(place[source], target) for source, target in pairs if source in place]
            ).T.contiguous()
            ranks = _ranks(self.source.fetch(torch.tensor(some)), wanted, self._targets, scales)
            found |= dict(zip(some, ranks.tolist(), strict=True))
        return found


def _scores(queries: Tensor, keys: Neighbours, similarities: Tensor | None) -> Iterator[tuple[Tensor, slice, Tensor]]:
    """Yield ids of this rank's rows of ``keys``, ascending, a part of the queries, and their scores (local).

    The score is the cosine, or with mean similarities r of the keys, 2 cos(x, y) - r(y): CSLS but for r(x). Scores are
    [queries of the part, ids], of a few million pairs at a time, however many queries the ranks have together.
    """
    start = 0
    for ids, units, unusable in keys.unit_blocks():
        step = max(1, _PRODUCTS_AT_A_TIME // len(ids))
        for first in range(0, len(queries), step):
            part = slice(first, min(first + step, len(queries)))
            scores = queries[part].to(units) @ units.T
            if similarities is not None:
                scores.mul_(2).sub_(similarities[start : start + len(ids)].to(units))
            scores[:, unusable] = -torch.inf
            yield ids, part, scores
        start += len(ids)


def _best(
    queries: TableRows,
    keys: Neighbours,
    similarities: Tensor,
    sample: Sample | None,
    numbers: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Return for each row of ``queries`` the id of the best key, int64 [query rows], and its score less r(x).

    Protocol: a block of queries of each rank travels to all, which answer with the best of their own rows.
    """
    best = torch.full((queries.num_rows,), -1)
    highest = torch.full((queries.num_rows,), -torch.inf, dtype=torch.float64)
    for query_ids, directions in all_blocks(queries):
        score = directions.new_full((len(directions),), -torch.inf)
        chosen = torch.full((len(directions),), -1)
        for ids, part, scores in _scores(directions, keys, similarities):
            if sample is not None and numbers is not None:
                sums = numbers[0][query_ids[part], None] + numbers[1][ids]
                scores.masked_fill_(sums > sample.bound, -torch.inf)
            values, places = scores.max(dim=1)
            is_better = values > score[part]
            score[part], chosen[part] = values.double().maximum(score[part]), ids[places].where(is_better, chosen[part])
        of_all, ids_of_all = queries.gather(score[None]), queries.gather(chosen[None])
        highest[query_ids] = of_all.amax(0)
        ids_of_all[(of_all < of_all.amax(0)) | (ids_of_all < 0)] = keys.rows.num_rows
        lowest = ids_of_all.amin(0)
        best[query_ids] = lowest.where((lowest < keys.rows.num_rows) & directions.any(dim=1), -1)
    return best, highest


def _ranks(queries: Tensor, wanted: Tensor, keys: Neighbours, similarities: Tensor | None) -> Tensor:
    """Return the rank of the best wanted key of each query, int64 [N]; that of all keys if it is never found.

    Protocol: ranks tell each other the scores of the wanted keys, then how many of their own keys score higher.

    Args:
        queries: float64 [N, D].
        wanted: for each pair the place of its query and the id of its key, int64 [2, P]; each query has one.
    """
    gold = torch.full((wanted.shape[1],), -torch.inf, dtype=torch.float64)
    for ids, part, scores in _scores(queries, keys, similarities):
        places, are_here = places_of(wanted[1], ids)
        are_here &= (wanted[0] >= part.start) & (wanted[0] < part.stop)
        gold[are_here] = scores[wanted[0, are_here] - part.start, places[are_here]].double()
    gold = keys.rows.gather(gold[None]).amax(0)
    goal = torch.full((len(queries),), -torch.inf, dtype=torch.float64).scatter_reduce(0, wanted[0], gold, "amax")
    is_goal = gold == goal[wanted[0]]
    goal_id = torch.full((len(queries),), keys.rows.num_rows).scatter_reduce(
        0, wanted[0, is_goal], wanted[1, is_goal], "amin"
    )
    ahead = torch.zeros(len(queries), dtype=torch.int64)
    for ids, part, scores in _scores(queries, keys, similarities):
        level = goal[part, None].to(scores)
        ahead[part] += ((scores > level) | ((scores == level) & (ids < goal_id[part, None]))).sum(1)
    found = keys.rows.sum(ahead) + 1
    return found.where(goal.isfinite() & queries.any(dim=1), keys.rows.num_rows)
