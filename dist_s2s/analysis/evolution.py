"""How recorded vectors move over the steps of a training: pure functions of arrays.

Shapes: R records, N words, D numbers in a vector. A word that is absent from a record has a row of NaN there, and so
has NaN for a result; "first" and "last" are those records in which it is present.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]  # [R, N, D]
Floats = NDArray[np.float64]


def norms(rows: Rows) -> Floats:
    """Return the Euclidean norm of each vector: [R, N]."""
    found: Floats = np.linalg.norm(rows.astype(np.float64), axis=2)
    return found


def drift_from_first(rows: Rows) -> Floats:
    """Return the norm of each vector's difference to the word's first one: [R, N]."""
    return norms(rows.astype(np.float64) - first_rows(rows))


def cosine_to_first(rows: Rows) -> Floats:
    """Return the cosine of each vector with the word's first one: [R, N]; NaN if one of them is zero."""
    first = first_rows(rows)
    with np.errstate(invalid="ignore"):
        cosines: Floats = (rows * first).sum(axis=2) / (norms(rows) * np.linalg.norm(first, axis=1))
    return cosines


def first_rows(rows: Rows) -> Floats:
    """Return the vector of each word in the first record that has it: [N, D]; NaN if none has."""
    if len(rows) == 0:
        return np.full(rows.shape[1:], np.nan)
    is_present = ~np.isnan(rows).any(axis=2)
    first: Floats = rows[is_present.argmax(axis=0), np.arange(rows.shape[1])].astype(np.float64)
    return first


def nearest(rows: Rows, k: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the nearest other recorded words of each word by cosine, the nearest first.

    Args:
        rows: [R, N, D].
        k: how many; at most N - 1 are found.

    Returns:
        Their numbers among the words, -1 where there are no more, and the cosines, NaN there: both [R, N, k]. Of equal
        cosines the lower number comes first. A vector of zeros is like an absent one.
    """
    numbers = np.full((*rows.shape[:2], k), -1, dtype=np.int64)
    cosines = np.full((*rows.shape[:2], k), np.nan)
    for record, rows_ND in enumerate(rows.astype(np.float64)):
        with np.errstate(invalid="ignore"):
            units = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
        similar = units @ units.T
        np.fill_diagonal(similar, np.nan)
        order = np.argsort(-similar, axis=1, kind="stable")[:, :k]  # NaN last
        found = np.take_along_axis(similar, order, axis=1)
        width = order.shape[1]
        numbers[record, :, :width] = np.where(np.isnan(found), -1, order)
        cosines[record, :, :width] = found
    return numbers, cosines


def principal_plane(rows: Rows) -> tuple[Floats, Floats]:
    """Project all vectors onto the plane of the two largest principal components of them all.

    Returns:
        The coordinates [R, N, 2], and the share of the variance that each axis explains, [2]. The sign of an axis is
        such that the largest coordinate on it is positive.
    """
    flat = rows.reshape(-1, rows.shape[2]).astype(np.float64)
    present = flat[~np.isnan(flat).any(axis=1)]
    if len(present) == 0:
        return np.full((*rows.shape[:2], 2), np.nan), np.zeros(2)
    mean = present.mean(axis=0)
    centred = present - mean
    variances, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    plane = np.zeros((rows.shape[2], 2))
    plane[:, : len(variances[-2:])] = axes[:, ::-1][:, :2]
    coordinates = centred @ plane
    plane *= np.where(coordinates[np.abs(coordinates).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    explained = np.zeros(2)
    explained[: len(variances[-2:])] = variances[::-1][:2].clip(min=0) / max(variances.sum(), np.finfo(float).tiny)
    return ((flat - mean) @ plane).reshape(*rows.shape[:2], 2), explained
