"""The rotation that takes the vectors of one language to those of another, and the file that keeps it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.analysis.alignment.dictionary import Pairs
from dist_s2s.analysis.alignment.normalizing import Normalization
from dist_s2s.analysis.rows import TableRows
from dist_s2s.storage.durable_files import write_output

_PAIRS_AT_A_TIME = 1 << 12
_NAMES = ("mapping", "target_mean", "target_scale")


def procrustes(source: TableRows, target: TableRows, pairs: Pairs) -> Tensor:
    """Return the orthogonal W, float64 [D, D], with the least Σ |xW - y|² over pairs of rows x, y (collective).

    W = UVᵀ for the singular value decomposition USVᵀ of Σ xᵀy (Schönemann 1966).

    Args:
        pairs: ids, at least one pair, the same on every rank. Rows of some thousands travel at a time.
    """
    products = torch.zeros(source.dim, source.dim, dtype=torch.float64)
    for x, y in _paired_rows(source, target, pairs):
        products += x.T @ y
    u, _, v = torch.linalg.svd(products)
    return _of_first(u @ v, source)


def _paired_rows(source: TableRows, target: TableRows, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of some thousand pairs at a time, float64 [N, D] each (collective)."""
    for start in range(0, len(pairs), _PAIRS_AT_A_TIME):
        ids = torch.tensor(pairs[start : start + _PAIRS_AT_A_TIME]).T.contiguous()
        yield source.fetch(ids[0]), target.fetch(ids[1])


def _of_first(matrix: Tensor, rows: TableRows) -> Tensor:
    """Return the first rank's matrix on all ranks, as processors may differ in what they compute (collective)."""
    return rows.sum(matrix if rows.group.rank == 0 else torch.zeros_like(matrix))


def map_rows(rows: TableRows, mapping: Tensor) -> TableRows:
    """Return the products of rows with a matrix, [D, D], computed anew whenever they are looked at (local)."""

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        return ((ids, block @ mapping.to(block)) for ids, block in rows.blocks())

    return TableRows(rows.num_rows, rows.dim, rows.group, blocks)


@dataclass(frozen=True)
class Mapping:
    """A rotation of normalized vectors, and where the target's vectors were before they were normalized.

    Attributes:
        matrix: W, float64 [D, D]: a row vector x becomes xW.
        target: of the target's vectors; only its mean, norm and distance.
    """

    matrix: Tensor
    target: Normalization

    def to_target(self, rows: Tensor) -> Tensor:
        """Return normalized source vectors, [N, D], among the target's as these were before they were normalized."""
        return self.target.undo(rows @ self.matrix.to(rows))

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Write a safetensors file: `mapping`, `target_mean`, and `target_scale`, which is norm and distance."""
        scale = torch.tensor([self.target.norm, self.target.distance], dtype=torch.float64)
        tensors = dict(zip(_NAMES, (self.matrix.contiguous(), self.target.mean, scale), strict=True))
        write_output(path, save(tensors, metadata))

    @classmethod
    def load(cls, path: Path, dim: int) -> "Mapping":
        """Return the mapping of a file.

        Args:
            dim: of the vectors that are to be mapped.

        Raises:
            UserError: there is no such file, it holds something else, or a mapping of another dimension.
        """
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} cannot be read as a mapping: {getattr(error, 'strerror', None) or error}"
            ) from None
        missing = [name for name in _NAMES if name not in tensors]
        if missing:
            raise UserError(f"{path} is no mapping that `align` has saved: it lacks {', '.join(missing)}")
        matrix, mean, scale = (tensors[name].double() for name in _NAMES)
        if matrix.shape != (dim, dim) or mean.shape != (dim,) or scale.shape != (2,):
            raise UserError(f"{path} maps {' x '.join(map(str, matrix.shape))}, but the vectors have {dim} numbers")
        if not all(tensor.isfinite().all() for tensor in (matrix, mean, scale)):
            raise UserError(f"{path} has numbers that are not finite; save the mapping again")
        return cls(matrix, Normalization(mean, float(scale[0]), float(scale[1]), 0, 0))
