"""On any number of ranks and in both layouts, alignment is what NumPy finds in the whole tables."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from dist_s2s.analysis.alignment.learning import SelfLearning, refine, self_learn
from dist_s2s.analysis.alignment.mapping import map_rows, procrustes
from dist_s2s.analysis.alignment.normalizing import normalize
from dist_s2s.analysis.alignment.retrieval import Sample, Translations
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.analysis.neighbours import CSLS_NEIGHBOURS
from dist_s2s.analysis.rows import TableRows
from dist_s2s.sharded import DistributedEmbedding
from tests.rank_pool import RankPool
from tests.sharded.reference import LAYOUTS, random_rows

D, RESERVED, SAMPLE = 6, 2, Sample(0.3, seed=4)
SOURCE, TARGET = random_rows((61, D), seed=1) + 0.3, random_rows((83, D), seed=2) - 0.2
SOURCE[7], SOURCE[9, 2], TARGET[5], TARGET[11, 0] = 0, torch.nan, 0, torch.inf
PAIRS = [(index, index + 3) for index in range(12, 40)]
TEST = [(40, 50), (40, 17), (41, 12), (42, 80), (7, 30)]
Array = NDArray[np.float64]
_learnt: dict[str, Array] = {}


def align(group: dist.ProcessGroup) -> tuple[dict[str, dict[str, Any]], Array]:
    source, target = sides = [open_side(whole, "round_robin", group) for whole in (SOURCE, TARGET)]
    for side in sides:
        normalize(side.rows, RESERVED)
    learnt = self_learn(source, target, PAIRS, SelfLearning(50, patience=0), lambda _: None)
    return {layout: align_in(layout, group) for layout in LAYOUTS}, learnt.numpy()


def open_side(whole: Tensor, layout: str, group: dist.ProcessGroup) -> WordVectors:
    table = DistributedEmbedding.from_pretrained(whole, process_group=group, layout=layout)
    return WordVectors("", [""] * len(whole), TableRows.of_table(table), RESERVED)


def align_in(layout: str, group: dist.ProcessGroup) -> dict[str, Any]:
    source, target = sides = [open_side(whole, layout, group) for whole in (SOURCE, TARGET)]
    normalizations = [normalize(side.rows, RESERVED) for side in sides]
    mapping = procrustes(source.rows, target.rows, PAIRS)
    translations = Translations(map_rows(source.rows, mapping), target.rows)
    return {
        "rows": [side.rows.fetch(torch.arange(side.rows.num_rows)).numpy() for side in sides],
        "norms": [(each.mean.numpy(), each.norm, each.distance, each.dead, each.non_finite) for each in normalizations],
        "mapping": mapping.numpy(),
        "nearest": translations.ranks(TEST, csls=False),
        "csls": translations.ranks(TEST, csls=True),
        "mutual": translations.mutual(),
        "sample": translations.best_targets(SAMPLE)[0].tolist(),
        "similarity": translations.mean_similarity,
        "refined": refine(source, target, mapping, PAIRS, 2, 50).numpy(),
    }


@pytest.fixture(scope="module", params=[1, 2, 4])
def found(ranks: RankPool, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    (first, learnt), *others = ranks.run(align, world_size=request.param)
    for other, _ in others:
        for layout in LAYOUTS:
            assert (other[layout]["mapping"] == first[layout]["mapping"]).all()
            assert other[layout]["mutual"] == first[layout]["mutual"]
    for _, other in others:
        assert (other == learnt).all()
    close(learnt, _learnt.setdefault("on one rank", learnt))
    return list(first.values())


def test_what_numpy_finds(found: list[dict[str, Any]]) -> None:
    for each in found:
        sides = []
        for whole, rows, norms in zip((SOURCE, TARGET), each["rows"], each["norms"], strict=True):
            expected, figures = normalized(whole.numpy().copy())
            close(rows, expected)
            for one, other in zip(norms, figures, strict=True):
                close(one, other)
            sides.append(expected)
        check_translations(each, *sides)


def check_translations(found: dict[str, Any], source: Array, target: Array) -> None:
    close(found["mapping"], fit(source, target, PAIRS))
    mapped = source @ fit(source, target, PAIRS)
    cosines, csls, of_sources, of_targets = compare(mapped, target)
    similarities = np.concatenate((of_sources[alive(source)], of_targets[alive(target)]))
    close(found["similarity"], similarities.mean())
    for name, scores in (("nearest", cosines), ("csls", csls)):
        best = {s: max(scores[s, t] for source_id, t in TEST if source_id == s) for s, _ in TEST if s != 7}
        assert found[name] == {s: 1 + (scores[s] > score).sum() for s, score in best.items()} | {7: len(target)}
    pairs, scores = found["mutual"]
    assert pairs == mutual(csls)
    close(scores, [csls[pair] for pair in pairs])
    a, b = (numbers.numpy().astype(np.int64) for numbers in SAMPLE.of(len(source), len(target)))
    inside = (a[:, None] + b + 2**31) % 2**32 < SAMPLE.share * 2**32
    assert inside.mean() == pytest.approx(SAMPLE.share, abs=0.03)
    best = np.where(inside, csls, -np.inf)
    assert found["sample"] == [int(row.argmax()) if np.isfinite(row.max()) else -1 for row in best]
    refined = fit(source, target, PAIRS)
    for _ in range(2):
        some, others = source[: 50 + RESERVED], target[: 50 + RESERVED]
        refined = fit(source, target, list(dict.fromkeys([*PAIRS, *mutual(compare(some @ refined, others)[1])])))
    close(found["refined"], refined)


def normalized(rows: Array) -> tuple[Array, tuple[Array, float, float, int, int]]:
    norms = np.linalg.norm(rows, axis=1)
    usable = np.isfinite(norms) & (norms > 0) & (np.arange(len(rows)) >= RESERVED)
    units = rows[usable] / norms[usable, None]
    centred = units - units.mean(0)
    distances = np.linalg.norm(centred, axis=1)
    found = np.zeros_like(rows)
    found[usable] = centred / distances[:, None]
    return found, (units.mean(0), norms[usable].mean(), distances.mean(), 1, 1)


def fit(source: Array, target: Array, pairs: list[tuple[int, int]]) -> Array:
    left, right = np.array(pairs).T
    u, _, v = np.linalg.svd(source[left].T @ target[right])
    matrix: Array = u @ v
    return matrix


def alive(rows: Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = rows.any(1)
    return found


def compare(source: Array, target: Array) -> tuple[Array, Array, Array, Array]:
    cosines = source @ target.T
    cosines[~alive(source)] = cosines[:, ~alive(target)] = -np.inf
    of_sources, of_targets = (
        np.nan_to_num(-np.sort(-each, axis=1)[:, :CSLS_NEIGHBOURS], neginf=0).mean(1) for each in (cosines, cosines.T)
    )
    return cosines, 2 * cosines - of_sources[:, None] - of_targets, of_sources, of_targets


def mutual(csls: Array) -> list[tuple[int, int]]:
    targets, sources = csls.argmax(1), csls.argmax(0)
    usable = np.isfinite(csls.max(1))
    return [(s, int(t)) for s, t in enumerate(targets) if usable[s] and sources[t] == s]


def close(found: object, expected: object, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(expected), rtol=tolerance, atol=tolerance)
