"""Rows that begin anew because their id has got another word, in tables and in what is replicated."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.text.pieces import pieces_of
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.text.vocabulary_changes import Change

Beginning = Literal["initial", "pieces"]


@dataclass(frozen=True)
class NewRows:
    """Ids whose rows begin anew, the same on all ranks.

    Attributes:
        ids: int64 [N], each once.
        pieces: for each of them, other ids at the mean of whose rows its row is to begin; without any it begins with
            the values that an untrained table has there.
    """

    ids: Tensor
    pieces: Sequence[Sequence[int]]

    @classmethod
    def of(cls, changes: Sequence[Change], vocabulary: Vocabulary, beginning: Beginning) -> "NewRows":
        """Return the rows of a vocabulary's changes; pieces are words that were there before."""
        ids = [index for index, _, _ in changes]
        new = set(ids)
        with_pieces = beginning == "pieces"
        pieces = [pieces_of(word, vocabulary, left_out=new) if with_pieces else [] for _, _, word in changes]
        return cls(torch.tensor(ids, dtype=torch.int64), pieces)

    def select(self, numbers: Iterable[int]) -> "NewRows":
        """Return some of them, by number."""
        chosen = list(numbers)
        return NewRows(self.ids[chosen], [self.pieces[number] for number in chosen])

    @property
    def with_pieces(self) -> "NewRows":
        """Those that begin at the mean of others."""
        return self.select(number for number, pieces in enumerate(self.pieces) if pieces)

    def means(self, rows: Tensor) -> Tensor:
        """Return the mean of each one's pieces, [N, D], from their rows one after the other, [sum of pieces, D]."""
        lengths = torch.tensor([len(pieces) for pieces in self.pieces], device=rows.device)
        return torch.segment_reduce(rows, "mean", lengths=lengths) if len(lengths) else rows.new_empty(0, rows.shape[1])

    @property
    def all_pieces(self) -> Tensor:
        """The pieces of all, one after the other: int64."""
        return torch.tensor([index for pieces in self.pieces for index in pieces], dtype=torch.int64)


class Optimizers(Protocol):
    """What new rows need of the state of training."""

    @property
    def core_optimizer(self) -> Optimizer:
        """Of what is replicated."""

    @property
    def table_optimizer(self) -> Optimizer:
        """Of the tables."""


@torch.no_grad()
def begin_rows(table: DistributedEmbedding, new: NewRows, optimizer: Optimizer) -> None:
    """Let rows of a table begin anew, and set the optimizer's state of them to 0, on their owners (collective).

    Each rank resets the rows that it owns, looks up the rows of their pieces, wherever those are, and writes the means.
    """
    places = table.partition.positions(new.ids) - table.partition.offset(table.rank)
    is_mine = (places >= 0) & (places < len(table.weight))
    mine = new.select(is_mine.nonzero()[:, 0].tolist())
    device = table.weight.device
    table.reset_rows(mine.ids.to(device), optimizer)
    averaged = mine.with_pieces
    means = averaged.means(table(averaged.all_pieces.to(device)))
    places = table.partition.positions(averaged.ids) - table.partition.offset(table.rank)
    table.weight[places.to(device)] = means


@torch.no_grad()
def begin_replicated(weight: Tensor, new: NewRows, initial: Tensor, optimizer: Optimizer) -> None:
    """Let rows of a parameter that every rank holds whole begin anew, likewise (local).

    Args:
        weight: [V, D], or [V].
        initial: where the N rows begin that have no pieces, [N, D] or [N].
    """
    ids = new.ids.to(weight.device)
    weight[ids] = initial.to(weight)
    for value in optimizer.state[weight].values():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            value[ids] = 0
    averaged = new.with_pieces
    if weight.dim() == 2:
        weight[averaged.ids.to(weight.device)] = averaged.means(weight[averaged.all_pieces.to(weight.device)])
