"""The candidates for the next token of each hypothesis."""

from collections.abc import Callable

import torch
from torch import Tensor

from dist_s2s.models.search.demands import Demands
from dist_s2s.models.search.rules import Rules

# Shapes: N hypotheses that go on, C candidates of each, T tokens of each so far, X the model's outputs.

BestTokens = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Allowed:
    """What may come next in a search: the likeliest tokens that the rules leave, and those that are demanded.

    Attributes:
        banks: how far hypotheses have come with their phrases, if there are demands.
    """

    def __init__(
        self, best_tokens: BestTokens, rules: Rules, demands: Demands | None, beam_size: int, end_id: int
    ) -> None:
        self._best_tokens, self._rules, self._demands = best_tokens, rules, demands
        self._beam_size, self._end_id = beam_size, end_id
        self.banks = None if demands is None else demands.banks(beam_size, end_id)

    def candidates(
        self, outputs_NX: Tensor, hypotheses_N: Tensor, tokens_NT: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities, -inf for what is forbidden, and ids, [N, C] each (collective, if the caller's are).

        The beam_size best that are allowed are among the beam_size + F best of all, where F can be forbidden.

        Args:
            outputs_NX: the model's.
            hypotheses_N: numbers of the hypotheses, within B·K.
            tokens_NT: their tokens so far; see ``Rules.forbidden``.
            length: number of these.
        """
        more = self._rules.most_forbidden(length) + (self._demands is not None)  # a demand can forbid the end
        values_NC, ids_NC = self._best_tokens(outputs_NX, self._beam_size + more)
        is_free_N1 = torch.zeros_like(hypotheses_N, dtype=torch.bool)[:, None]
        if self._demands is not None and self.banks is not None and self._demands.most_wanted(length):
            values_NC, ids_NC, is_free_N1 = self._demands.add_wanted(
                outputs_NX, values_NC, ids_NC, self.banks, hypotheses_N, length
            )
        if more:
            is_forbidden_NC = self._rules.forbidden(ids_NC, tokens_NT, length, self._end_id)
            values_NC = values_NC.masked_fill(is_forbidden_NC & ~is_free_N1, -torch.inf)
        return values_NC, ids_NC
