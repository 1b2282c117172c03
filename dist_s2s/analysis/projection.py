"""Vectors in the plane: principal components, exact on tables that are never whole, and t-SNE."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.analysis.rows import TableRows
from dist_s2s.text.extras import extra

LEAST_FOR_TSNE = 4
_PERPLEXITY = 30.0  # scikit-learn's, which takes three times as many points


@dataclass(frozen=True)
class PrincipalAxes:
    """The directions in which vectors vary most.

    Attributes:
        mean: of the vectors, float64 [D].
        axes: unit vectors by falling variance, [K, D]. The number of largest size in each is positive.
        variances: along each axis, with n - 1 in the denominator, [K].
        shares: of the variance in all directions, [K]; zeros if there is none.
        number: of the vectors.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    shares: Tensor
    number: int

    def project(self, vectors_ND: Tensor) -> Tensor:
        """Return the coordinates of vectors on the axes, float64 [N, K]."""
        return (vectors_ND.double() - self.mean) @ self.axes.T


def axes_of_table(rows: TableRows, count: int = 2, left_out: range = range(0)) -> PrincipalAxes:
    """Return the principal axes of a table's finite rows (collective).

    Protocol: all ranks add up their sums, [D], and then their products of centred rows, [D, D]; no row travels.

    Args:
        rows: the table.
        count: of axes; with fewer dimensions than that, the other axes are zeros.
        left_out: ids that do not count, such as those of special tokens.
    """
    total = torch.zeros(rows.dim + 1, dtype=torch.float64)
    for values in _finite_blocks(rows, left_out):
        total += torch.cat((values.sum(0), torch.tensor([len(values)])))
    *_, number = total = rows.sum(total)
    mean = total[:-1] / number.clamp(min=1)
    products = torch.zeros(rows.dim, rows.dim, dtype=torch.float64)
    for values in _finite_blocks(rows, left_out):
        centred = (values - mean).numpy()
        products += torch.from_numpy(centred.T @ centred)  # NumPy computes half of what is symmetric
    return _axes(mean, rows.sum(products), int(number), count)


def axes_of_vectors(vectors_ND: Tensor, count: int = 2) -> PrincipalAxes:
    """Return the principal axes of vectors that all are finite; see ``axes_of_table``. Calls no collectives."""
    vectors = vectors_ND.double()
    mean = vectors.mean(0)
    return _axes(mean, (vectors - mean).T @ (vectors - mean), len(vectors), count)


def tsne(vectors_ND: Tensor) -> Tensor:
    """Place vectors in the plane so that those of high cosine are close, float64 [N, 2]; the same each time.

    By scikit-learn's t-SNE (van der Maaten & Hinton 2008): neighbourhoods mean something, distances and axes do not.

    Raises:
        UserError: scikit-learn is missing, or there are fewer than ``LEAST_FOR_TSNE`` vectors.
    """
    manifold = extra("sklearn.manifold", "analysis", "t-SNE")
    number = len(vectors_ND)
    if number < LEAST_FOR_TSNE:
        raise UserError(f"t-SNE needs at least {LEAST_FOR_TSNE} words, but there are {number}; take --method pca")
    perplexity = min(_PERPLEXITY, (number - 1) / 3)
    model = manifold.TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=0)
    return torch.from_numpy(model.fit_transform(vectors_ND.double().numpy())).double()


def _finite_blocks(rows: TableRows, left_out: range) -> Iterator[Tensor]:
    """Yield this rank's rows that count, as float64."""
    for ids, block in rows.blocks():
        values = block.to("cpu", torch.float64)
        yield values[values.isfinite().all(1) & ((ids < left_out.start) | (ids >= left_out.stop))]


def _axes(mean: Tensor, products: Tensor, number: int, count: int) -> PrincipalAxes:
    """Return the axes from the sum of products of ``number`` centred vectors, [D, D]."""
    variances, columns = torch.linalg.eigh(products / max(number - 1, 1))  # ascending
    variances, axes = variances.flip(0).clamp(min=0), columns.T.flip(0)
    total = variances.sum()
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = torch.where(largest < 0, -axes, axes)
    missing = max(count - len(mean), 0)
    axes = torch.cat((axes, axes.new_zeros(missing, len(mean))))[:count]
    variances = torch.cat((variances, variances.new_zeros(missing)))[:count]
    shares = variances / total if total > 0 else torch.zeros_like(variances)
    return PrincipalAxes(mean, axes, variances, shares, number)
