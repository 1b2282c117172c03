"""Samples of the translations that a model finds likely, each as often as the model says.

The caller supplies functions as for a search (see ``search``), of which ``embed`` and ``log_probabilities`` are called
once a step, in this order, and may be collective. Samples that have ended cost nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_s2s.models.protocols import EncoderDecoder, EncodingT, StateT
from dist_s2s.models.search import Hypothesis
from dist_s2s.models.search.beam import computed

# Shapes: B sentences, S source positions, E embedding_dim, X the model's outputs, V target vocabulary, M samples of all
# sentences, N of them that go on, C tokens that may be drawn.

Exponentials = Callable[[Tensor, int, Tensor], Tensor]


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn.

    Attributes:
        num_samples: of each sentence.
        temperature: log-probabilities are divided by it: below 1 likely tokens become likelier.
        top_k: then only so many of the likeliest tokens may be drawn; None for all.
        top_p: of these only the fewest likeliest whose probabilities, which then have the sum 1, reach it (nucleus
            sampling, Holtzman et al. 2020, arXiv:1904.09751). Of equally likely tokens all are left, or none.
    """

    num_samples: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what nothing can be drawn with."""
        if self.num_samples < 1 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(f"num_samples and top_k must be at least 1, but are {self.num_samples} and {self.top_k}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be within (0, 1], but is {self.top_p}")


@torch.no_grad()
def sample(
    model: EncoderDecoder[EncodingT, StateT],
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Callable[[Tensor], Tensor],
    log_probabilities: Callable[[Tensor], Tensor],
    exponentials: Exponentials,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    options: SamplingOptions,
    all_finished: Callable[[bool], bool] = bool,
) -> list[list[Hypothesis]]:
    """Return ``num_samples`` translations of each sentence, in the order in which they are numbered.

    A score is that of the model, whatever temperature, top_k and top_p are: the log-probability divided by length.

    Args:
        log_probabilities: turns the model's outputs [N, X] into those of all tokens, [N, V].
        exponentials: random numbers of the exponential distribution, float64 [N, C], for samples [N], numbered from 0
            over all sentences, the position in the translation, from 0, and tokens [N, C].
        start_id, end_id, max_lengths_B, all_finished: as for a search.
    """
    encoding, state = model.encode(source_BSE, source_lengths_B)
    count = options.num_samples
    limits_M = max_lengths_B.repeat_interleave(count)
    drawn = _Drawn.nothing(limits_M, end_id)
    sentences_N = torch.arange(len(max_lengths_B), device=limits_M.device)  # of the rows of encoding and state
    places_M = sentences_N.repeat_interleave(count)  # of each sample's row there
    tokens_M = torch.full_like(limits_M, start_id)
    while not all_finished(not bool(drawn.goes_on_M.any())):
        samples_N = computed(drawn.goes_on_M)
        sentences_before_N, sentences_N = sentences_N, samples_N // count
        rows_N = places_M[samples_N]
        state = state.select(rows_N)
        if not torch.equal(sentences_N, sentences_before_N):
            encoding = encoding.select(rows_N)
        outputs_NX, state = model.step(embed(tokens_M[samples_N]), state, encoding)
        found_NV = log_probabilities(outputs_NX)
        probabilities_NC, ids_NC = likeliest(found_NV, options)
        exponentials_NC = exponentials(samples_N, len(drawn.tokens), ids_NC)
        places_N = first_in_nucleus(probabilities_NC, exponentials_NC, options.top_p)
        tokens_N1 = ids_NC.gather(1, places_N[:, None])
        tokens_M = drawn.add(samples_N, tokens_N1[:, 0], found_NV.gather(1, tokens_N1)[:, 0])
        places_M[samples_N] = torch.arange(len(samples_N), device=samples_N.device)
    hypotheses = drawn.hypotheses()
    return [hypotheses[start : start + count] for start in range(0, len(hypotheses), count)]


def likeliest(log_probabilities_NV: Tensor, options: SamplingOptions) -> tuple[Tensor, Tensor]:
    """Return the probabilities, float64 [N, C], by temperature and top_k, of the tokens [N, C] that these leave."""
    size = log_probabilities_NV.shape[-1]
    best_NC, ids_NC = log_probabilities_NV, torch.arange(size, device=log_probabilities_NV.device).expand(1, -1)
    if options.top_k is not None and options.top_k < size:
        best_NC, ids_NC = log_probabilities_NV.topk(options.top_k, dim=1)
    below_NC = best_NC.double() - best_NC.amax(dim=1, keepdim=True)  # or else a low temperature could make all -inf
    return below_NC.div_(options.temperature).softmax(dim=1), ids_NC.expand_as(best_NC)


def first_in_nucleus(probabilities_NC: Tensor, exponentials_NC: Tensor, top_p: float) -> Tensor:
    """Return the places [N] of tokens that are drawn from those that ``top_p`` leaves.

    Of several tokens that take exponentially distributed times, each divided by its probability, the first to arrive is
    each one with its probability. So a draw is the token with the largest probability / exponential, and a draw from
    some tokens alone is the first of these. To tell which tokens are in the nucleus all would have to be sorted; so
    only those that come first are looked at, rarely more than a few.
    """
    race_NC = probabilities_NC / exponentials_NC
    places_N = race_NC.argmax(dim=1)
    rows_R = torch.arange(len(places_N), device=places_N.device)  # whose token has still to be looked at
    while top_p < 1 and len(rows_R):
        probabilities_RC = probabilities_NC[rows_R]
        is_out_R = ~is_in_nucleus(probabilities_RC, places_N[rows_R], top_p)
        rows_R, probabilities_RC = rows_R[is_out_R], probabilities_RC[is_out_R]
        limits_R1 = probabilities_RC.gather(1, places_N[rows_R][:, None])
        race_RC = race_NC[rows_R].masked_fill_(probabilities_RC <= limits_R1, 0.0)  # they are all out
        race_NC[rows_R] = race_RC
        places_N[rows_R] = race_RC.argmax(dim=1)
    return places_N


def is_in_nucleus(probabilities_NC: Tensor, places_N: Tensor, top_p: float) -> Tensor:
    """Return whether a token of each row is in the nucleus, bool [N]: likelier ones don't reach ``top_p`` together."""
    own_N1 = probabilities_NC.gather(1, places_N[:, None])
    is_out_N = probabilities_NC.masked_fill(probabilities_NC <= own_N1, 0.0).sum(dim=1) >= top_p
    return ~is_out_N  # so that nan, of a model that is broken, is not looked at again and again


@dataclass
class _Drawn:
    """The samples so far, M in number.

    Attributes:
        tokens: [M] of each step.
        total_M: float64 log-probability.
        goes_on_M: bool, False for those that have ended.
    """

    tokens: list[Tensor]
    total_M: Tensor
    goes_on_M: Tensor
    limits_M: Tensor
    end_id: int

    @classmethod
    def nothing(cls, limits_M: Tensor, end_id: int) -> "_Drawn":
        return cls([], torch.zeros_like(limits_M, dtype=torch.float64), limits_M > 0, limits_M, end_id)

    def add(self, samples_N: Tensor, tokens_N: Tensor, log_probabilities_N: Tensor) -> Tensor:
        """Add what was drawn for some samples, without those that have ended; return the last token of each, [M]."""
        counts_N = self.goes_on_M[samples_N]
        samples_N, tokens_N, found_N = (each[counts_N] for each in (samples_N, tokens_N, log_probabilities_N))
        tokens_M = torch.full_like(self.limits_M, self.end_id)
        tokens_M[samples_N] = tokens_N
        self.total_M[samples_N] += found_N.double()
        self.tokens.append(tokens_M)
        self.goes_on_M = self.goes_on_M & (tokens_M != self.end_id) & (len(self.tokens) < self.limits_M)
        return tokens_M

    def hypotheses(self) -> list[Hypothesis]:
        """Return the samples, in their order."""
        if not self.tokens:
            return [Hypothesis([], 0.0) for _ in range(len(self.limits_M))]
        found = zip(torch.stack(self.tokens, 1).tolist(), self.total_M.tolist(), self.limits_M.tolist(), strict=True)
        return [self._hypothesis(ids[:limit], total) for ids, total, limit in found]

    def _hypothesis(self, ids: list[int], total: float) -> Hypothesis:
        ends = self.end_id in ids
        words = ids[: ids.index(self.end_id)] if ends else ids
        return Hypothesis(words, total / max(1, len(words) + ends), is_cut=bool(ids) and not ends)
