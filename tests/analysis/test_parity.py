"""Every figure, on any number of ranks and in both layouts, is what NumPy finds in the whole table."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dist_s2s.analysis.neighbours import CSLS_NEIGHBOURS, Neighbours, cosine_matrix
from dist_s2s.analysis.norms import QUANTILES
from dist_s2s.analysis.rows import TableRows
from dist_s2s.analysis.statistics import Statistics, describe
from dist_s2s.sharded import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, random_rows

D = 5
SPECIALS = 2  # left out as neighbours, in tables that are large enough
K = 7
Found = tuple[Statistics, dict[str, Any], Tensor]


def make_table(num_rows: int, dtype: torch.dtype) -> Tensor:
    """Rows off the origin; in the larger table some are dead, some equal, some not finite."""
    whole = random_rows((num_rows, D), seed=num_rows) + 0.3
    if num_rows > 100:
        whole[[0, 70]] = 0
        whole[[9, 129, 130]] = whole[8].clone()
        whole[60] = -whole[59]
        whole[61, :2] = -whole[59, :2]
        whole[50, 2], whole[51, 0] = torch.nan, torch.inf
    return whole.to(dtype)


TABLES = {
    "131 rows": make_table(131, torch.float64),
    "3 rows": make_table(3, torch.float64),
    "float32": make_table(131, torch.float32),
    "large norms": make_table(131, torch.float64) * 300,  # whose exp is infinite
}
COUNTS = {name: torch.arange(len(rows)).flip(0) for name, rows in TABLES.items()}


def left_out(rows: Tensor) -> range:
    return range(SPECIALS if len(rows) > 100 else 0)


def look(group: dist.ProcessGroup) -> dict[tuple[str, str], Found]:
    found = {}
    for name, whole in TABLES.items():
        for layout in LAYOUTS:
            rows = TableRows.of_table(DistributedEmbedding.from_pretrained(whole, process_group=group, layout=layout))
            neighbours = Neighbours(rows, left_out(whole))
            similarities = neighbours.mean_similarities(neighbours)
            a, b, c = rows.fetch(torch.tensor([2, 1, 2] if len(whole) == 3 else [8, 20, 33]))
            answers = {
                "nearest": neighbours.nearest(a, K, [2] if len(whole) == 3 else [8]),
                "all": neighbours.nearest(b, 1000),
                "csls": neighbours.nearest_by_csls(a, K, similarities, [2]),
                "add": neighbours.analogy(a, b, c, K, [1, 2]),
                "multiply": neighbours.analogy(a, b, c, K, [1, 2], multiply=True),
            }
            answers = {key: [(each.id, each.score) for each in some] for key, some in answers.items()}
            whole_similarities = rows.sum(
                torch.zeros(len(whole), dtype=torch.float64).index_put((neighbours._ids,), similarities)
            )
            found[name, layout] = describe(rows, COUNTS[name]), answers, whole_similarities
    return found


@pytest.fixture(scope="module", params=[1, 2, 4])
def found(ranks: RankPool, request: pytest.FixtureRequest) -> dict[tuple[str, str], Found]:
    first, *others = ranks.run(look, world_size=request.param)
    for other in others:
        assert all(other[key][:2] == first[key][:2] for key in first)
    return first


def test_statistics(found: dict[tuple[str, str], Found]) -> None:
    for (name, _), (statistics, _, _) in found.items():
        check_statistics(statistics, TABLES[name], COUNTS[name].numpy())


def check_statistics(found: Statistics, table: Tensor, counts: np.ndarray) -> None:
    whole, is_rough = table.double().numpy(), table.dtype == torch.float32
    finite = np.isfinite(whole).all(1)
    rows = whole[finite]
    norms = np.linalg.norm(rows, axis=1)
    assert (found.num_rows, found.dim) == whole.shape
    assert (found.non_finite, found.non_finite_ids) == ((~finite).sum(), np.flatnonzero(~finite).tolist())
    dead = np.flatnonzero((whole == 0).all(1))
    assert (found.dead, found.dead_ids) == (len(dead), dead.tolist())
    close(found.mean, rows.mean())
    close(found.std, rows.std())
    close([found.norms.min, found.norms.max, found.norms.mean], [norms.min(), norms.max(), norms.mean()])
    close(list(found.norms.quantiles.values()), np.quantile(norms, QUANTILES))
    counted, edges = np.histogram(norms, len(found.norms.counts))
    assert found.norms.counts == counted.tolist()
    close(found.norms.edges, edges)
    assert (found.duplicates.rows, found.duplicates.pairs) == (
        (3, [(9, 8), (129, 8), (130, 8)]) if len(whole) > 100 else (0, [])
    )
    _, vectors = np.linalg.eigh(rows.T @ rows)
    logs = np.logaddexp.reduce(rows @ np.hstack((vectors, -vectors)))
    close(found.isotropy, np.exp(logs.min() - logs.max()), 1e-5 if is_rough else 1e-6)
    close(found.mean_direction, np.linalg.norm((rows[norms > 0] / norms[norms > 0, None]).mean(0)))
    singular = np.linalg.svd(rows, compute_uv=False)
    shares = singular / singular.sum()
    close(found.effective_rank, np.exp(-(shares * np.log(shares)).sum()))
    used = counts[finite] > 0
    close(found.frequency_correlation, np.corrcoef(np.log(counts[finite][used]), norms[used])[0, 1])


def test_neighbours(found: dict[tuple[str, str], Found]) -> None:
    for (name, _), (_, answers, similarities) in found.items():
        check_neighbours(answers, similarities.numpy(), TABLES[name], left_out(TABLES[name]))


def check_neighbours(answers: dict[str, Any], similarities: np.ndarray, table: Tensor, out: range) -> None:
    whole, is_rough = table.double().numpy(), table.dtype == torch.float32
    with np.errstate(invalid="ignore"):
        units = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    usable = np.isfinite(units).all(1) & ~np.isin(np.arange(len(whole)), out)
    units[~usable] = 0
    small = len(whole) == 3
    a, b, c = (whole[index] / np.linalg.norm(whole[index]) for index in ([2, 1, 2] if small else [8, 20, 33]))
    cosines = units @ units.T
    cosines[:, ~usable] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    highest = -np.sort(-cosines, axis=1)[:, :CSLS_NEIGHBOURS]
    count = np.isfinite(highest).sum(1)
    means = np.where(usable, np.where(np.isfinite(highest), highest, 0).sum(1) / np.maximum(1, count), 0)
    close(similarities, means)

    def best(scores: np.ndarray, k: int, without: list[int]) -> list[tuple[int, float]]:
        allowed = [index for index in np.flatnonzero(usable) if index not in without]
        scores = scores.round(12)
        return [(index, scores[index]) for index in sorted(allowed, key=lambda index: (-scores[index], index))[:k]]

    own = np.mean([score for _, score in best(units @ a, CSLS_NEIGHBOURS, [2])])
    towards = b - a + c
    moved = [(units @ vector + 1) / 2 for vector in (a, b, c)]
    expected = {
        "nearest": best(units @ a, K, [2] if small else [8]),
        "all": best(units @ b, 1000, []),
        "csls": best(2 * units @ a - own - means, K, [2]),
        "add": best(units @ towards / np.linalg.norm(towards), K, [1, 2]),
        "multiply": best(moved[1] * moved[2] / (moved[0] + 1e-3), K, [1, 2]),
    }
    for key, some in expected.items():
        if not (key == "csls" and is_rough):  # which may order equal rows in any way
            assert [index for index, _ in answers[key]] == [index for index, _ in some], key
        close([score for _, score in answers[key]], [score for _, score in some])


def close(found: object, expected: object, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(expected), rtol=tolerance, atol=tolerance)


def test_cosines() -> None:
    vectors = random_rows((4, D), seed=1)
    norms = np.linalg.norm(vectors.numpy(), axis=1)
    close(cosine_matrix(vectors), vectors.numpy() @ vectors.numpy().T / np.outer(norms, norms))
    with pytest.raises(ValueError, match="has no direction"):
        cosine_matrix(vectors * torch.tensor([[1.0], [0.0], [1.0], [1.0]]))


def test_a_table_without_finite_rows() -> None:
    rows = TableRows.of_table(DistributedEmbedding.from_pretrained(torch.full((3, 2), torch.nan)))
    with pytest.raises(ValueError, match="none of the table's 3 rows is finite"):
        describe(rows)


def test_a_table_of_zeros_and_one_of_equal_rows() -> None:
    zeros = describe(TableRows.of_table(DistributedEmbedding.from_pretrained(torch.zeros(3, 2))))
    assert (zeros.dead, zeros.std, zeros.effective_rank, zeros.isotropy, zeros.mean_direction) == (3, 0, 0, 1, 0)
    assert zeros.norms.counts[10] == zeros.norms.counts[9] + 3
    ones = describe(TableRows.of_table(DistributedEmbedding.from_pretrained(torch.ones(3, 2))), torch.zeros(3))
    assert (ones.duplicates.rows, ones.duplicates.pairs) == (2, [(1, 0), (2, 0)])
    assert ones.effective_rank == pytest.approx(1)
    assert ones.frequency_correlation is None
