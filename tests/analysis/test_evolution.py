"""Each figure against a plain loop, with words that are absent from some records."""

import math

import numpy as np
import pytest

from dist_s2s.analysis.evolution import (
    cosine_to_first,
    drift_from_first,
    nearest,
    norms,
    principal_plane,
)

R, N, D = 7, 5, 3


def records() -> np.ndarray:
    """Word 1 is absent from record 4 on, word 2 until record 2, word 3 always."""
    rows = np.random.default_rng(0).normal(size=(R, N, D)).astype(np.float32)
    rows[4:, 1], rows[:2, 2], rows[:, 3] = np.nan, np.nan, np.nan
    return rows


ROWS = records()


def length(vector: np.ndarray) -> float:
    return math.sqrt(sum(float(value) ** 2 for value in vector))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    product = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return product / (length(one) * length(other))


def present(word: int) -> list[int]:
    return [record for record in range(R) if not math.isnan(ROWS[record, word, 0])]


def test_figures_equal_those_of_a_loop() -> None:
    for record in range(R):
        for word in range(N):
            row, there = ROWS[record, word], present(word)
            found = [each(ROWS)[record, word] for each in (norms, drift_from_first, cosine_to_first)]
            if record not in there:
                assert all(map(math.isnan, found))
                continue
            first = ROWS[there[0], word].astype(float)
            expected = [length(row), length(row - first), cosine(row, first)]
            assert found == pytest.approx(expected, abs=1e-6)


def test_nearest_words_equal_those_of_a_loop() -> None:
    numbers, cosines = nearest(ROWS, 3)
    for record in range(R):
        for word in range(N):
            others = [other for other in range(N) if other != word and record in present(other)]
            pairs = [(-cosine(ROWS[record, word], ROWS[record, other]), other) for other in others]
            pairs = sorted(pairs)[:3] if record in present(word) else []
            assert numbers[record, word].tolist() == [other for _, other in pairs] + [-1] * (3 - len(pairs))
            assert cosines[record, word, : len(pairs)] == pytest.approx([-value for value, _ in pairs], abs=1e-6)
            assert np.isnan(cosines[record, word, len(pairs) :]).all()


def test_equal_vectors_come_in_order_and_zero_is_near_to_nothing() -> None:
    rows = np.array([[[1, 0], [2, 0], [3, 0], [0, 0]]], dtype=np.float32)
    numbers, cosines = nearest(rows, 5)
    assert numbers[0].tolist() == [[1, 2, -1, -1, -1], [0, 2, -1, -1, -1], [0, 1, -1, -1, -1], [-1] * 5]
    assert cosines[0, 0, :2] == pytest.approx([1, 1])
    assert np.isnan(cosine_to_first(rows)[0, 3])


def test_plane_keeps_the_most_of_the_variance() -> None:
    coordinates, explained = principal_plane(ROWS)
    rows = ROWS.reshape(-1, D).astype(np.float64)
    rows = rows[~np.isnan(rows[:, 0])]
    rows -= rows.mean(axis=0)
    singular = np.linalg.svd(rows, compute_uv=False)
    flat = coordinates.reshape(-1, 2)
    flat = flat[~np.isnan(flat[:, 0])]
    assert np.linalg.norm(flat, axis=0) == pytest.approx(singular[:2])
    assert explained == pytest.approx(singular[:2] ** 2 / (singular**2).sum())
    assert (np.isnan(coordinates[..., 0]) == np.isnan(ROWS[..., 0])).all()
    assert (flat.max(axis=0) == np.abs(flat).max(axis=0)).all()


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (1, 1, 1), (3, 2, 1)])
def test_little_to_look_at(shape: tuple[int, int, int]) -> None:
    rows = np.ones(shape, dtype=np.float32)
    for figure in (norms, drift_from_first, cosine_to_first):
        assert figure(rows).shape == shape[:2]
    coordinates, explained = principal_plane(rows)
    assert coordinates.shape == (*shape[:2], 2)
    assert not coordinates.any()
    assert not explained.any()
    assert nearest(rows, 2)[0].shape == (*shape[:2], 2)
