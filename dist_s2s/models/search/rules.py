"""Which tokens may not come next."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Shapes: N hypotheses that go on, C candidates of each, T tokens of each so far, W places where an n-gram may end.


@dataclass(frozen=True)
class Rules:
    """What no hypothesis of a search may do. The probabilities of other tokens stay as they are.

    Attributes:
        min_length: tokens before the end may come.
        no_repeat_ngram: no n-gram of so many tokens occurs twice; 0: all may.
    """

    min_length: int = 0
    no_repeat_ngram: int = 0

    def most_forbidden(self, length: int) -> int:
        """Return the most tokens that can be forbidden after ``length`` others: the same on every rank."""
        repeated = max(0, length - self.no_repeat_ngram + 1) if self.no_repeat_ngram else 0
        return (length < self.min_length) + repeated

    def forbidden(self, ids_NC: Tensor, tokens_NT: Tensor, length: int, end_id: int) -> Tensor:
        """Return which candidates are forbidden after ``length`` tokens, bool [N, C].

        Args:
            ids_NC: int64 ids of the candidates.
            tokens_NT: int64 tokens so far, T = length; read only if n-grams may not occur twice.
            length: tokens so far.
            end_id: of the end token.
        """
        forbidden_NC = torch.zeros_like(ids_NC, dtype=torch.bool)
        if length < self.min_length:
            forbidden_NC |= ids_NC == end_id
        if 0 < self.no_repeat_ngram <= length:
            ngrams_NWn = tokens_NT.unfold(1, self.no_repeat_ngram, 1)
            last_N1n = tokens_NT[:, None, length - self.no_repeat_ngram + 1 :]
            repeats_NW = (ngrams_NWn[:, :, :-1] == last_N1n).all(dim=2)
            is_next_NCW = (ids_NC[:, :, None] == ngrams_NWn[:, None, :, -1]) & repeats_NW[:, None]
            forbidden_NC |= is_next_NCW.any(dim=2)
        return forbidden_NC
