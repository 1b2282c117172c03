"""Which rows point in the same direction: exact neighbours and analogies by cosines, over the ranks that hold the rows.

A row that is dead, not finite, or left out, such as a special token's, is never a neighbour. Scores are computed in
blocks, in the dtype of the rows; those that rounding leaves in doubt are scored again in float64. So results are those
of float64, and equal scores go by id. Mean similarities alone, of CSLS, are as exact as the dtype of the rows.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from heapq import nsmallest

import torch
from torch import Tensor

from dist_s2s.analysis.rows import TableRows, places_of

CSLS_NEIGHBOURS = 10  # as in Conneau et al. 2018
_PRODUCTS_AT_A_TIME = 1 << 22
_DECIMALS = 12  # of scores, so that rounding does not order those that are equal
_EPSILON = 1e-3  # of 3CosMul, as in Levy & Goldberg 2014
# From cosines of N rows with some directions, [N, C], and the rows' places on this rank to N scores.
Score = Callable[[Tensor, Tensor | slice], Tensor]


@dataclass(frozen=True)
class Neighbour:
    """A row of the table, and how close it is."""

    id: int
    score: float


def unit(vectors: Tensor) -> Tensor:
    """Return vectors, float64 [..., D], scaled to norm 1; ValueError if one is zero or not finite."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    if not (norms.isfinite() & (norms > 0)).all():
        raise ValueError("a vector of norm 0, or with a number that is not finite, has no direction")
    return vectors.div(norms)


def cosine_matrix(vectors: Tensor) -> Tensor:
    """Return the cosines of all pairs of vectors, float64 [N, N] from [N, D]; ValueError as ``unit``."""
    directions = unit(vectors)
    return directions @ directions.T


class Neighbours:
    """The rows of a table as neighbours of vectors. Building it and its methods are collective.

    All ranks ask the same, and get the same answers. The norms of rows are kept; they must not change meanwhile.

    Args:
        rows: the table.
        left_out: ids that are nobody's neighbours.
    """

    def __init__(self, rows: TableRows, left_out: Collection[int] = ()) -> None:
        self.rows = rows
        ids, norms = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.float64)]
        for block_ids, block in rows.blocks():
            ids.append(block_ids)
            norms.append(torch.linalg.vector_norm(block, dim=1, dtype=torch.float64).cpu())
        self._ids, self._norms = torch.cat(ids), torch.cat(norms)
        self._unusable = self._with(~self._norms.isfinite() | (self._norms == 0), left_out)

    def _with(self, marked: Tensor, ids: Collection[int]) -> Tensor:
        """Return a copy of ``marked``, bool [rows], in which this rank's rows of these ids are marked as well."""
        places, are_here = places_of(torch.tensor(sorted(ids), dtype=torch.int64), self._ids)
        return marked.index_fill(0, places[are_here], True)

    def nearest(self, vector: Tensor, k: int, without: Collection[int] = ()) -> list[Neighbour]:
        """Return the k rows of the highest cosine with a vector, float64 [D]; fewer if there are no more.

        Args:
            vector: the same on every rank.
            without: ids that are left out.

        Raises:
            ValueError: on every rank, if the vector has no direction.
        """
        return self._best(unit(vector)[None], lambda cosines, _: cosines[:, 0], k, without)

    def nearest_by_csls(
        self, vector: Tensor, k: int, similarities: Tensor, without: Collection[int] = ()
    ) -> list[Neighbour]:
        """Return the k best rows by cross-domain similarity local scaling (Conneau et al. 2018).

        The score of a row y is 2 · cos(x, y) - r(x) - r(y), with r the mean cosine with the nearest rows.

        Args:
            similarities: r of this rank's rows, from ``mean_similarities``.

        Raises:
            ValueError: as ``nearest``.
        """
        closest = self.nearest(vector, CSLS_NEIGHBOURS, without)
        own = sum(neighbour.score for neighbour in closest) / max(1, len(closest))
        return self._best(
            unit(vector)[None], lambda cosines, places: 2 * cosines[:, 0] - own - similarities[places], k, without
        )

    def analogy(
        self, a: Tensor, b: Tensor, c: Tensor, k: int, without: Collection[int], *, multiply: bool = False
    ) -> list[Neighbour]:
        """Return the k rows that are to c as b is to a.

        Args:
            a, b, c: float64 [D], the same on every rank.
            without: ids that are left out: those of the three words.
            multiply: by 3CosMul, cos(y, b) · cos(y, c) / (cos(y, a) + 0.001), with cosines moved to [0, 1] (Levy &
                Goldberg 2014), instead of 3CosAdd, the cosine with b - a + c, vectors of norm 1 (Mikolov et al. 2013).

        Raises:
            ValueError: as ``nearest``; b - a + c too may have no direction.
        """
        directions = unit(torch.stack((a, b, c)))
        if not multiply:
            return self.nearest(directions[1] - directions[0] + directions[2], k, without)
        return self._best(directions, _three_cos_mul, k, without, dtype=torch.float64)

    def mean_similarities(self, keys: "Neighbours", k: int = CSLS_NEIGHBOURS) -> Tensor:
        """Return the mean cosine of each of this rank's rows with its k nearest of ``keys``, float64 [rows].

        A row is not its own neighbour. With fewer than k neighbours it is the mean of those there are, or 0; and 0 for
        rows that are neighbours of none. Takes a multiplication for each pair of rows and number of a row; a block of
        rows of each rank travels to all at a time, and nothing of the size rows × rows is ever in memory.

        Args:
            keys: of a table of the same ranks; may be ``self``.
        """
        found, mine = [torch.empty(0, dtype=torch.float64)], self.unit_blocks()
        turns = int(self.rows.gather(torch.tensor([sum(1 for _ in self.rows.blocks())])).max())
        for _ in range(turns):
            ids, units, _ = next(mine, (torch.empty(0, dtype=torch.int64), torch.empty(0, self.rows.dim), None))
            counts = self.rows.gather(torch.tensor([len(ids)]))
            excluded = self.rows.gather(ids)
            closest = keys._closest(self.rows.gather(units.double()), k, excluded if keys is self else excluded[:0])
            begin = int(counts[: self.rows.group.rank].sum())
            of_ranks = self.rows.gather(closest[None])[:, begin : begin + len(ids)]
            best = of_ranks.transpose(0, 1).flatten(1).topk(k).values
            is_there = best.isfinite()
            found.append(best.where(is_there, 0).sum(1) / is_there.sum(1).clamp(min=1))
        return torch.cat(found).where(~self._unusable, 0)

    def unit_blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield of each block the ids, the rows of norm 1, or 0 if they are unusable, and which are."""
        for places, block in self._blocks():
            units = block / self._norms[places, None].to(block)
            units[self._unusable[places]] = 0
            yield self._ids[places], units, self._unusable[places]

    def _closest(self, directions: Tensor, k: int, excluded: Tensor) -> Tensor:
        """Return the k highest cosines of each direction with this rank's rows, [N, k]; -inf where there are fewer.

        Args:
            excluded: for each direction the id of a row that is left out; or none at all.
        """
        best = directions.new_full((len(directions), k), -torch.inf)
        for ids, units, unusable in self.unit_blocks():
            step = max(1, _PRODUCTS_AT_A_TIME // len(ids))
            for start in range(0, len(directions), step):
                now = slice(start, start + step)
                cosines = directions[now].to(units) @ units.T
                cosines[:, unusable] = -torch.inf
                if len(excluded):
                    places, are_here = places_of(excluded[now], ids)
                    cosines[are_here.nonzero()[:, 0], places[are_here]] = -torch.inf
                highest = cosines.topk(min(k, len(ids))).values.to(best)
                best[now] = torch.cat((best[now], highest), dim=1).topk(k).values
        return best

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield of each block where its rows stand among this rank's, and the rows, in float32 or float64."""
        start = 0
        for ids, block in self.rows.blocks():
            yield slice(start, start + len(ids)), block.to("cpu", torch.promote_types(block.dtype, torch.float32))
            start += len(ids)

    def _best(
        self,
        directions: Tensor,
        score: Score,
        k: int,
        without: Collection[int],
        dtype: torch.dtype | None = None,
    ) -> list[Neighbour]:
        """Return the k rows of the highest score, by their cosines with ``directions``, [C, D] (collective).

        Args:
            dtype: what scores are first computed in; by default that of the rows.
        """
        unusable, best = self._with(self._unusable, without), _Best(k)
        for places, block in self._blocks():
            rows = block if dtype is None else block.to(dtype)
            cosines = (rows @ directions.to(rows).T).div_(self._norms[places, None].to(rows))
            rough = score(cosines, places)
            doubt = 8 * self.rows.dim * torch.finfo(rows.dtype).eps
            if float(rough.max()) < best.least - doubt:  # most blocks; a row that is not finite makes it false
                continue
            rough = rough.masked_fill(unusable[places], -torch.inf)
            least = max(best.least, float(rough.topk(min(k, len(rough))).values[-1])) - doubt
            [chosen] = ((rough >= least) & (rough > -torch.inf)).nonzero(as_tuple=True)
            at = chosen + places.start
            # Sums row by row, so that equal rows have equal scores wherever they are.
            exact = (block[chosen, None].double() * directions).sum(-1) / self._norms[at, None]
            best.add(score(exact, at).round(decimals=_DECIMALS), self._ids[at])
        # Ids are below 2^53, and float64 holds them.
        of_all = self.rows.gather(torch.tensor(best.found, dtype=torch.float64).view(-1, 2)).tolist()
        return [Neighbour(int(index), -score) for score, index in nsmallest(k, map(tuple, of_all))]


class _Best:
    """The k highest scores so far, equal ones by id: ``found`` are pairs of them, (-score, id), in order."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.found: list[tuple[float, int]] = []

    @property
    def least(self) -> float:
        """What a score must reach."""
        return -self.found[-1][0] if len(self.found) == self._k else -torch.inf

    def add(self, scores: Tensor, ids: Tensor) -> None:
        """Take in further rows: mostly one or two, of which lists are made faster than tensors."""
        self.found = nsmallest(self._k, [*self.found, *zip((-scores).tolist(), ids.tolist(), strict=True)])


def _three_cos_mul(cosines: Tensor, _: object) -> Tensor:
    moved = (cosines + 1) / 2
    return moved[:, 1].mul(moved[:, 2]).div(moved[:, 0] + _EPSILON)
