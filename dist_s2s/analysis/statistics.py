"""Figures of a whole table, in two passes over the rows of each rank."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s.analysis.duplicates import Duplicates, find_duplicates, hash_rows
from dist_s2s.analysis.norms import Distribution, distribution
from dist_s2s.analysis.rows import TableRows, places_of

NAMED = 5  # so many ids of special rows are told, the lowest
_SAFE_EXPONENT = 40  # of float32: neither sums of exp of these, nor of their inverses, overflow


@dataclass(frozen=True)
class Statistics:
    """What a table looks like; docs/analysis.md says what the figures mean.

    Attributes:
        num_rows, dim: size of the table.
        non_finite: rows whose norm is no finite number; they are left out of all that follows.
        non_finite_ids: the lowest of their ids.
        dead, dead_ids: the same of rows of zeros.
        mean, std: of all numbers.
        norms: of the rows.
        duplicates: rows equal to others; dead ones are not among them.
        isotropy: the least over the largest value of the partition function along the directions of the eigenvectors of
            WᵀW and against them (Mu & Viswanath 2018).
        mean_direction: norm of the mean of all rows that are scaled to norm 1, dead ones left out; 0 for none.
        effective_rank: exp of the entropy of the singular values (Roy & Vetterli 2007); 0 if all rows are dead.
        frequency_correlation: Pearson's, of the logarithms of rows' counts and their norms, over rows that have been
            counted; None where counts are not known or all the same.
    """

    num_rows: int
    dim: int
    non_finite: int
    non_finite_ids: list[int]
    dead: int
    dead_ids: list[int]
    mean: float
    std: float
    norms: Distribution
    duplicates: Duplicates
    isotropy: float
    mean_direction: float
    effective_rank: float
    frequency_correlation: float | None


@dataclass(frozen=True)
class _FirstPass:
    """What one rank has found: N rows of finite norm, in the order of its blocks, and sums over them.

    Attributes:
        ids, norms, hashes: of these rows, [N].
        non_finite: ids of the others.
        total: sum of their numbers, float64 [1].
        gram: WᵀW, float64 [D, D].
        direction: sum of the rows that are scaled to norm 1, float64 [D].
    """

    ids: Tensor
    norms: Tensor
    hashes: Tensor
    non_finite: Tensor
    total: Tensor
    gram: Tensor
    direction: Tensor


def describe(rows: TableRows, counts: Tensor | None = None) -> Statistics:
    """Return the figures of a table, the same on every rank (collective).

    What travels between ranks is of the size of a row times a row, of counts, or of 8 bytes a row (see duplicates.py).

    Args:
        rows: the table.
        counts: how often each id has occurred, [num_rows], the same on every rank, if that is known.

    Raises:
        ValueError: on every rank, if no row is finite.
    """
    first = _first_pass(rows)
    is_dead = first.norms == 0
    non_finite, non_finite_ids = _count_and_name(first.non_finite, rows)
    dead, dead_ids = _count_and_name(first.ids[is_dead], rows)
    if non_finite == rows.num_rows:
        raise ValueError(f"none of the table's {rows.num_rows:,} rows is finite")
    gram = rows.sum(first.gram)
    eigenvalues, eigenvectors = torch.linalg.eigh(gram)
    numbers = rows.dim * (rows.num_rows - non_finite)
    mean = float(rows.sum(first.total)) / numbers
    alive = rows.num_rows - non_finite - dead
    return Statistics(
        rows.num_rows,
        rows.dim,
        non_finite,
        non_finite_ids,
        dead,
        dead_ids,
        mean,
        math.sqrt(max(0.0, float(gram.trace()) / numbers - mean**2)),
        distribution(first.norms, rows),
        find_duplicates(first.ids[~is_dead], first.hashes[~is_dead], rows, NAMED),
        _isotropy(rows, first.non_finite, eigenvectors),
        float(rows.sum(first.direction).norm()) / max(1, alive),
        effective_rank(eigenvalues),
        None if counts is None else _frequency_correlation(first, counts, rows),
    )


def effective_rank(eigenvalues: Tensor) -> float:
    """Return exp of the entropy of singular values, from their squares, float64 [D]."""
    noise = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues.max()
    singular = eigenvalues[eigenvalues > noise].sqrt()
    shares = singular / singular.sum()
    return math.exp(-float((shares * shares.log()).sum())) if len(shares) else 0.0


def _first_pass(rows: TableRows) -> _FirstPass:
    ids, hashes, non_finite = ([torch.empty(0, dtype=torch.int64)] for _ in range(3))
    norms = [torch.empty(0, dtype=torch.float64)]
    gram, direction, total = (
        torch.zeros(*size, dtype=torch.float64) for size in ((rows.dim, rows.dim), (rows.dim,), (1,))
    )
    for block_ids, block in rows.blocks():
        block = block.cpu()
        values = block.double()
        lengths = torch.linalg.vector_norm(values, dim=1)
        is_finite = lengths.isfinite()
        non_finite.append(block_ids[~is_finite])
        if not is_finite.all():
            block_ids, block, values = block_ids[is_finite], block[is_finite], values[is_finite]
            lengths = lengths[is_finite]
        if not len(values):
            continue
        ids.append(block_ids)
        norms.append(lengths)
        hashes.append(hash_rows(block))
        total += values.sum()
        # NumPy sees that this is symmetric, and computes half of it.
        gram += torch.from_numpy(values.numpy().T @ values.numpy())
        direction += (1 / lengths).nan_to_num(posinf=0) @ values
    return _FirstPass(
        torch.cat(ids), torch.cat(norms), torch.cat(hashes), torch.cat(non_finite), total, gram, direction
    )


def _count_and_name(mine: Tensor, rows: TableRows) -> tuple[int, list[int]]:
    """Return how many ids all ranks have, and the lowest of them (collective)."""
    count = int(rows.sum(torch.tensor([len(mine)])))
    return count, rows.gather(mine.sort().values[:NAMED]).sort().values[:NAMED].tolist()


def _isotropy(rows: TableRows, left_out: Tensor, directions: Tensor) -> float:
    """Return min Z(c) / max Z(c) over the columns c of ``directions``, [D, D], and their opposites (collective).

    Z(c) is the sum of exp(cᵀw) over all rows w, and kept as its logarithm.

    Args:
        left_out: ids of this rank's rows that do not count, ascending.
    """
    parts = [torch.full((1, 2 * rows.dim), -torch.inf, dtype=torch.float64)]
    for ids, block in rows.blocks():
        values = block.to("cpu", torch.promote_types(block.dtype, torch.float32))
        _, are_left_out = places_of(ids, left_out)
        if are_left_out.any():
            values = values[~are_left_out]
        if len(values):
            parts.append(_log_sums(values @ directions.to(values))[None])
    logs = rows.gather(torch.cat(parts).logsumexp(0)[None]).logsumexp(0)
    return math.exp(float(logs.min() - logs.max()))


def _log_sums(products: Tensor) -> Tensor:
    """Return the logarithms of the sums of exp(products) and of exp(-products), [N, D], over rows, float64 [2 * D].

    The products are overwritten: memory for copies of them costs more time than what is computed.
    """
    largest = max(map(abs, products.aminmax()))
    if largest < _SAFE_EXPONENT:
        powers = products.exp_()
        return torch.cat((powers.sum(0), powers.reciprocal_().sum(0))).double().log()
    # Where all numbers of a column are too small for exp, its sum is 0 beside that of another.
    sums = [shifted.exp_().sum(0) for shifted in (products - largest, -largest - products)]
    return torch.cat(sums).double().log() + largest


def _frequency_correlation(first: _FirstPass, counts: Tensor, rows: TableRows) -> float | None:
    mine = counts[first.ids]
    pairs = torch.stack((mine[mine > 0].double().log(), first.norms[mine > 0]))
    total, *sums = rows.sum(torch.cat((torch.tensor([pairs.shape[1]]), pairs.sum(1)))).tolist()
    if not total:
        return None
    centred = pairs - torch.tensor(sums, dtype=torch.float64)[:, None] / total
    covariance = rows.sum(centred @ centred.T)
    spread = math.sqrt(float(covariance[0, 0] * covariance[1, 1]))
    return float(covariance[0, 1]) / spread if spread else None
