"""Several models that predict as one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.protocols import AttentiveEncoderDecoder

# Shapes: B sentences, S and T source and target positions, N rows, V target vocabulary, E, X, H: the members' sizes of
# rows of embedded tokens, of outputs and of the states before them, one after the other.


@dataclass(frozen=True)
class Member:
    """A model of an ensemble, and the sizes of what belongs to it.

    Attributes:
        model: an encoder-decoder.
        source_dim, target_dim: numbers of an embedded source and target token.
        output_dim: numbers of an output of ``step``.
        state_dim: numbers of what the output layer is applied to.
        dtype: of what the model reads.
    """

    model: AttentiveEncoderDecoder[Any, Any]
    source_dim: int
    target_dim: int
    output_dim: int
    state_dim: int
    dtype: torch.dtype


class Parts(NamedTuple):
    """The encodings, or the states, of each member."""

    of_members: tuple[Any, ...]

    def select(self, rows_N: Tensor) -> "Parts":
        """Return those of the sentences ``rows_N``, int64 [N], in that order."""
        return Parts(tuple(each.select(rows_N) for each in self.of_members))


class Ensemble:
    """An EncoderDecoder of several, which may be of any sizes.

    What it reads is what its members read, one after the other in the last dimension, and so are its outputs.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    def __call__(
        self, source_BSE: Tensor, source_lengths_B: Tensor, target_BTE: Tensor, apply_output: bool = True
    ) -> Tensor:
        """Return the outputs [B, T, X] of all members, with teacher forcing, or their states [B, T, H]."""
        inputs = zip(self._members, self._sources(source_BSE), self._targets(target_BTE), strict=True)
        return torch.cat(
            [member.model(source, source_lengths_B, target, apply_output) for member, source, target in inputs], dim=-1
        )

    def encode(self, source_BSE: Tensor, source_lengths_B: Tensor) -> tuple[Parts, Parts]:
        """Return what the members make of the source, and their states before the first target token."""
        inputs = zip(self._members, self._sources(source_BSE), strict=True)
        found = [member.model.encode(source, source_lengths_B) for member, source in inputs]
        return Parts(tuple(encoding for encoding, _ in found)), Parts(tuple(state for _, state in found))

    def step(self, embedded_NE: Tensor, state: Parts, encoding: Parts) -> tuple[Tensor, Parts]:
        """Return the outputs [N, X] after one more target token, and the states after it."""
        inputs = zip(self._members, self._targets(embedded_NE), *state, *encoding, strict=True)
        found = [member.model.step(rows, mine, encoded) for member, rows, mine, encoded in inputs]
        return torch.cat([outputs for outputs, _ in found], dim=-1), Parts(tuple(after for _, after in found))

    def step_with_attention(self, embedded_NE: Tensor, state: Parts, encoding: Parts) -> tuple[Tensor, Parts, Tensor]:
        """Return what ``step`` does, and the mean of what the members look at, [N, S], all of which have attention."""
        inputs = zip(self._members, self._targets(embedded_NE), *state, *encoding, strict=True)
        found = [member.model.step_with_attention(*each) for member, *each in inputs]
        outputs, states, weights = zip(*found, strict=True)
        return torch.cat(outputs, dim=-1), Parts(states), torch.stack([each.double() for each in weights]).mean(0)

    def _sources(self, source_BSE: Tensor) -> list[Tensor]:
        return split(source_BSE, self._members, [member.source_dim for member in self._members])

    def _targets(self, target_BTE: Tensor) -> list[Tensor]:
        return split(target_BTE, self._members, [member.target_dim for member in self._members])


def split(values: Tensor, members: Sequence[Member], sizes: Sequence[int]) -> list[Tensor]:
    """Return what belongs to each member, in its dtype, of what they have in the last dimension."""
    parts = values.split(list(sizes), dim=-1)
    return [part.to(member.dtype) for part, member in zip(parts, members, strict=True)]


def mean_of_probabilities(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the probabilities whose logarithms these are, all of one shape.

    It has the most precise of their dtypes.
    """
    dtype = reduce(torch.promote_types, (each.dtype for each in log_probabilities))
    sums = reduce(torch.logaddexp, (each.to(dtype) for each in log_probabilities))
    return sums - math.log(len(log_probabilities))
