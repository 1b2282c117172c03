"""A search in which each sentence has the choice of its own few target tokens, and no other logits are computed.

The rows of the output layer that any sentence of a batch lists are gathered once, their union. A step multiplies the
states with these, and each hypothesis then sees the logits of its own sentence's list alone, so that what is found for
a sentence does not depend on the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.output import best_of_logits, log_probabilities
from dist_s2s.models.protocols import AttentiveEncoderDecoder, EncodingT, StateT

# Shapes: B sentences, N rows, U tokens that any sentence lists, L tokens of the longest list, H states, E
# embedding_dim, S source positions, M given tokens.


@dataclass(frozen=True)
class TokenLists:
    """Which target tokens each sentence of a batch lists.

    Attributes:
        ids_U: int64, rising; the first is padding, which no sentence lists.
        places_BL: int64, among ``ids_U``, rising; 0 after the end of a list.
    """

    ids_U: Tensor
    places_BL: Tensor


class ListedEncoding(NamedTuple, Generic[EncodingT]):
    """Encoded sentences, each with the places of its tokens."""

    encoding: EncodingT
    places_BL: Tensor

    def select(self, rows_N: Tensor) -> "ListedEncoding[EncodingT]":
        """Return those of the sentences ``rows_N``, int64 [N], in that order."""
        return ListedEncoding(self.encoding.select(rows_N), self.places_BL[rows_N])


class ListedModel(Generic[EncodingT, StateT]):
    """An encoder-decoder for one search over one batch, with what finds tokens in its outputs.

    Its outputs [N, L] are logits, in the order of the rows' lists; -inf after the end of a list.

    Args:
        model: its outputs are states, to which no output layer is applied.
        logits: turns states [N, H] into the logits [N, U] of the listed tokens, which may be changed.
        lists: of the batch's sentences.
    """

    def __init__(
        self,
        model: AttentiveEncoderDecoder[EncodingT, StateT],
        logits: Callable[[Tensor], Tensor],
        lists: TokenLists,
    ) -> None:
        self._model, self._logits, self._lists = model, logits, lists
        self._places_NL = lists.places_BL  # of the outputs of the last step

    def encode(self, source_BSE: Tensor, source_lengths_B: Tensor) -> tuple[ListedEncoding[EncodingT], StateT]:
        """Return the encoded source and the state before the first target token."""
        encoding, state = self._model.encode(source_BSE, source_lengths_B)
        return ListedEncoding(encoding, self._lists.places_BL), state

    def step(self, embedded_NE: Tensor, state: StateT, encoding: ListedEncoding[EncodingT]) -> tuple[Tensor, StateT]:
        """Return the outputs [N, L] after one more target token, and the state after it."""
        states_NH, state = self._model.step(embedded_NE, state, encoding.encoding)
        return self._listed(states_NH, encoding), state

    def step_with_attention(
        self, embedded_NE: Tensor, state: StateT, encoding: ListedEncoding[EncodingT]
    ) -> tuple[Tensor, StateT, Tensor]:
        """Return what ``step`` does, and what the position looks at in the source, [N, S]."""
        states_NH, state, weights_NS = self._model.step_with_attention(embedded_NE, state, encoding.encoding)
        return self._listed(states_NH, encoding), state, weights_NS

    def best_tokens(self, outputs_NL: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k likeliest of the tokens that each row of the last step lists; see ``best_of_logits``."""
        log_probabilities_NK, columns_NK = best_of_logits(outputs_NL, k, ())
        return log_probabilities_NK, self._lists.ids_U[self._places_NL.gather(1, columns_NK)]

    def given_tokens(self, outputs_NL: Tensor, ids_NM: Tensor) -> Tensor:
        """Return the log-probabilities [N, M] of given tokens for the rows of the last step; -inf of others' tokens."""
        log_probabilities_NL = log_probabilities(outputs_NL, ())
        places_NM = torch.searchsorted(self._lists.ids_U, ids_NM).clamp_(max=len(self._lists.ids_U) - 1)
        is_it_NML = self._places_NL[:, None, :] == places_NM[:, :, None]
        is_it_NML &= (self._lists.ids_U[places_NM] == ids_NM)[:, :, None]
        return log_probabilities_NL[:, None, :].masked_fill(~is_it_NML, -torch.inf).amax(dim=2)

    def _listed(self, states_NH: Tensor, encoding: ListedEncoding[EncodingT]) -> Tensor:
        self._places_NL = encoding.places_BL
        logits_NU = self._logits(states_NH)
        logits_NU[:, 0] = -torch.inf  # of padding
        return logits_NU.gather(1, encoding.places_BL)
