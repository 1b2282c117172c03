"""What the translation of a sentence must have: tokens that it begins with, and phrases that it contains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dist_s2s.models.search.banks import Banks
from dist_s2s.models.search.hypothesis import Hypothesis

# Shapes: B sentences, K beam_size, N hypotheses that go on, C candidates of each, M tokens that a hypothesis may want.

LogProbabilitiesOf = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Demand:
    """What every hypothesis of a sentence must have.

    Attributes:
        prefix: ids that it begins with, whatever the rules say.
        phrases: each as ids that it contains one after the other; no phrase is empty.
    """

    prefix: tuple[int, ...] = ()
    phrases: tuple[tuple[int, ...], ...] = ()

    @property
    def size(self) -> int:
        """The tokens that are needed at most: a phrase that another or the prefix contains needs none."""
        needed = [
            phrase
            for phrase in self.phrases
            if not contains(self.prefix, phrase)
            and not any(other != phrase and contains(other, phrase) for other in self.phrases)
        ]
        return len(self.prefix) + sum(map(len, needed))

    @property
    def tokens(self) -> list[int]:
        """All ids that it is of."""
        return [*self.prefix, *(token for phrase in self.phrases for token in phrase)]

    def unmet(self, ids: Sequence[int]) -> int:
        """Return how many phrases these ids do not contain."""
        return sum(not contains(ids, phrase) for phrase in self.phrases)


def contains(ids: Sequence[object], phrase: Sequence[object]) -> bool:
    """Tell whether a sequence has a phrase's elements in a row."""
    size = len(phrase)
    return any(list(ids[place : place + size]) == list(phrase) for place in range(len(ids) - size + 1))


@dataclass(frozen=True)
class Demands:
    """The demands of a batch.

    Attributes:
        of_sentences: a Demand for each row of the batch.
        log_probabilities_of: turns the model's outputs [N, X] and int64 ids [N, M] into the log-probabilities of these
            ids, [N, M], of the same distribution as ``best_tokens``. It may be collective.
        longest_prefix, most_phrases: at least those of any sentence of any rank, and the same on every rank: they
            decide how often ``log_probabilities_of`` is called, and M.
    """

    of_sentences: Sequence[Demand]
    log_probabilities_of: LogProbabilitiesOf
    longest_prefix: int
    most_phrases: int

    @classmethod
    def among(
        cls, demands: Sequence[Demand], log_probabilities_of: LogProbabilitiesOf, everyone: Sequence[Demand]
    ) -> Self:
        """Return some of all sentences' demands, which are the same on every rank."""
        prefix = max((len(demand.prefix) for demand in everyone), default=0)
        phrases = max((len(demand.phrases) for demand in everyone), default=0)
        return cls(demands, log_probabilities_of, prefix, phrases)

    def most_wanted(self, length: int) -> int:
        """Return M after ``length`` tokens; 0: nothing is to be asked for."""
        return max(self.most_phrases, int(length < self.longest_prefix))

    def banks(self, beam_size: int, end_id: int) -> Banks:
        """Return how far the hypotheses of a new beam have come."""
        return Banks([demand.phrases for demand in self.of_sentences], beam_size, end_id)

    def best(self, found_B: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """Return those hypotheses of each sentence that no other has more phrases than, in their order."""
        kept = []
        for found, demand in zip(found_B, self.of_sentences, strict=True):
            unmet = [demand.unmet(hypothesis.ids) for hypothesis in found]
            kept.append([each for each, lacks in zip(found, unmet, strict=True) if lacks == min(unmet)])
        return kept

    def add_wanted(
        self, outputs_NX: Tensor, values_NC: Tensor, ids_NC: Tensor, banks: Banks, hypotheses_N: Tensor, length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add M columns to the candidates: tokens that are wanted and not among them (collective, if that is).

        A hypothesis that lacks a phrase may not end.

        Returns:
            Log-probabilities and ids [N, C + M]; and bool [N, 1], which hypotheses are still in their prefix, and have
            its next token as their only candidate.
        """
        width = self.most_wanted(length)
        wanted, in_prefix, lacks = list[list[int]](), list[list[bool]](), list[list[bool]]()
        for sentence, place in (divmod(number, banks.beam_size) for number in hypotheses_N.tolist()):
            prefix = self.of_sentences[sentence].prefix
            in_prefix.append([length < len(prefix)])
            wanted.append([prefix[length]] if length < len(prefix) else banks.next_tokens(sentence, place))
            lacks.append([not banks.has_all(sentence, place)])
        is_wanted = [[column < len(some) for column in range(width)] for some in wanted]
        padded = [some + [banks.end_id] * (width - len(some)) for some in wanted]
        wanted_NM, is_wanted_NM, in_prefix_N1, lacks_N1 = (
            torch.tensor(rows, device=ids_NC.device) for rows in (padded, is_wanted, in_prefix, lacks)
        )
        found_NM = self.log_probabilities_of(outputs_NX, wanted_NM).to(values_NC.dtype)
        values_NC = values_NC.masked_fill(in_prefix_N1 | (lacks_N1 & (ids_NC == banks.end_id)), -torch.inf)
        ids_of_none_NC = ids_NC.masked_fill(values_NC.isneginf(), -1)
        is_known_NM = (wanted_NM[:, :, None] == ids_of_none_NC[:, None]).any(dim=2)
        found_NM = found_NM.masked_fill(is_known_NM | ~is_wanted_NM, -torch.inf)
        return torch.cat((values_NC, found_NM), dim=1), torch.cat((ids_NC, wanted_NM), dim=1), in_prefix_N1
