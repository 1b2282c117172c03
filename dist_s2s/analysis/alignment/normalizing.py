"""Vectors of norm 1 whose mean is zero: what alignment compares (Artetxe et al. 2016, Xing et al. 2015)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s.analysis.rows import TableRows


@dataclass(frozen=True)
class Normalization:
    """What has been done to a table, as far as it can be undone.

    Attributes:
        mean: of the rows of norm 1, which was subtracted, float64 [D].
        norm: mean norm of the rows as they were.
        distance: mean norm of the rows of norm 1 once the mean was subtracted.
        dead, non_finite: rows that were zero or not finite; they have become zero.
    """

    mean: Tensor
    norm: float
    distance: float
    dead: int
    non_finite: int

    def undo(self, rows: Tensor) -> Tensor:
        """Return normalized rows, [N, D], as they may have been: with the mean and the norm of all."""
        return (rows * self.distance + self.mean.to(rows)) * self.norm


@torch.no_grad()
def normalize(rows: TableRows, reserved: int = 0) -> Normalization:
    """Scale the rows to norm 1, subtract their mean, and scale them again; in place (collective).

    Args:
        rows: views of a table, as of ``TableRows.of_table``. Rows that are zero or not finite become zero.
        reserved: rows of ids below this one become zero as well, and do not count.

    Raises:
        ValueError: on every rank, if no row is left.
    """
    total = torch.zeros(rows.dim, dtype=torch.float64)
    figures = torch.zeros(4, dtype=torch.float64)  # rows that count, their norms, dead rows, those that are not finite
    for ids, block in rows.blocks():
        norms = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
        counts = (ids >= reserved).to(norms.device)
        usable = counts & norms.isfinite() & (norms > 0)
        block.div_(norms[:, None].to(block)).masked_fill_(~usable[:, None], 0)
        total += block.double().sum(0).cpu()
        figures += torch.stack(
            (usable.sum(), norms[usable].sum(), (counts & (norms == 0)).sum(), (counts & ~norms.isfinite()).sum())
        ).cpu()
    count, norm, dead, non_finite = rows.sum(figures).tolist()
    if not count:
        raise ValueError(
            f"none of its {rows.num_rows - reserved:,} vectors has a direction: all are zero or not finite"
        )
    mean = rows.sum(total) / count
    distances = torch.zeros((), dtype=torch.float64)
    for _, block in rows.blocks():
        usable = block.any(dim=1)
        block.sub_(mean.to(block) * usable[:, None])
        norms = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
        distances += norms.sum().cpu()
        block.div_(norms.where(norms > 0, 1)[:, None].to(block))
    return Normalization(mean, norm / count, float(rows.sum(distances)) / count, int(dead), int(non_finite))


def all_blocks(rows: TableRows) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids, int64 [N], and rows, float64 [N, D], of all ranks together: a block of each at a time (collective).

    If rows go round robin, ids ascend.
    """
    mine, turns = rows.blocks(), int(rows.gather(torch.tensor([sum(1 for _ in rows.blocks())])).max())
    for _ in range(turns):
        ids, block = next(mine, (torch.empty(0, dtype=torch.int64), torch.empty(0, rows.dim)))
        ids, of_all = rows.gather(ids), rows.gather(block.double())
        order = ids.argsort()
        yield ids[order], of_all[order]
