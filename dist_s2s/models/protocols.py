"""What search and training ask of a model, whatever it is made of."""

from typing import Protocol, Self, TypeVar

from torch import Tensor

# Shapes: B sentences, S and T source and target positions, N rows, E embedding_dim, X numbers of an output.


class Selectable(Protocol):
    """Values of several sentences, a row each."""

    def select(self, rows_N: Tensor) -> Self:
        """Return the values of the sentences ``rows_N``, int64 [N], in that order; a sentence may recur."""


EncodingT = TypeVar("EncodingT", bound=Selectable)
StateT = TypeVar("StateT", bound=Selectable)


class Stepwise(Protocol[EncodingT, StateT]):
    """A model that reads embedded source tokens, and predicts target tokens one after the other."""

    def encode(self, source_BSE: Tensor, source_lengths_B: Tensor) -> tuple[EncodingT, StateT]:
        """Return the encoded source, which stays as it is, and the state before the first target token.

        Args:
            source_BSE: rows of the source table.
            source_lengths_B: int64 number of real tokens, at least 1 each.
        """

    def step(self, embedded_BE: Tensor, state: StateT, encoding: EncodingT) -> tuple[Tensor, StateT]:
        """Return the outputs [B, X] after one more target token, and the state after it."""


class EncoderDecoder(Stepwise[EncodingT, StateT], Protocol[EncodingT, StateT]):
    """A model that can also be given all target tokens at once.

    It knows neither where the rows of its tokens live nor what becomes of its outputs, and calls no collectives.
    """

    def __call__(
        self, source_BSE: Tensor, source_lengths_B: Tensor, target_BTE: Tensor, apply_output: bool = True
    ) -> Tensor:
        """Return the outputs [B, T, X] for the token after each target position, with teacher forcing.

        Args:
            source_BSE, source_lengths_B: as of ``encode``.
            target_BTE: rows of the target table for SOS and the reference's tokens.
            apply_output: if not, return what the output layer is to be applied to.
        """


class AttentiveEncoderDecoder(EncoderDecoder[EncodingT, StateT], Protocol[EncodingT, StateT]):
    """A model that can tell what it looks at."""

    def step_with_attention(
        self, embedded_BE: Tensor, state: StateT, encoding: EncodingT
    ) -> tuple[Tensor, StateT, Tensor]:
        """Return what ``step`` does, and the attention of the position, [B, S]: rows of sum 1, 0 at padding."""
