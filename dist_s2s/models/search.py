"""Greedy and beam search over batches.

The caller supplies two functions, each called once a step, in this order. They may be collective: then every rank must
call them equally often.

- ``embed`` turns target ids [N] into rows [N, E].
- ``best_tokens`` turns the model's outputs [N, X] and a number k into the k likeliest tokens to come after each row,
  of those that may be chosen: log-probabilities [N, k], float32 or float64, falling, and int64 ids [N, k]. Where they
  are fewer than k, the other columns have log-probability -inf; their ids are ignored.

So the caller also supplies ``all_finished``, which turns this rank's "I have finished" into the same answer on all
ranks; the search goes on until it is True. Hypotheses that have ended cost nothing: a step computes a row for each of
the others alone, and a rank that has finished goes on with a single row, which counts for nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.protocols import EncoderDecoder, EncodingT, StateT

# Shapes: B sentences, S source positions, T target positions so far, E embedding_dim, X the model's outputs,
# K beam_size, C = K candidates of each hypothesis, N hypotheses that go on, of all sentences: at most B·K.

Embed = Callable[[Tensor], Tensor]
BestTokens = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Agreement = Callable[[bool], bool]


@dataclass(frozen=True)
class Hypothesis:
    """A target sentence that a search has found.

    Attributes:
        ids: tokens, without start and end.
        score: log-probability divided by length, in nats, the end token counted in both; 0 for no step at all.
        is_cut: it has reached its maximum length, of at least 1, without an end.
    """

    ids: list[int]
    score: float
    is_cut: bool = False


def greedy_search(
    model: EncoderDecoder[EncodingT, StateT],
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    best_tokens: BestTokens,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    all_finished: Agreement = bool,
) -> list[Hypothesis]:
    """Take the likeliest token at each step, until ``end_id`` or a sentence's maximum length: a beam of one."""
    found = beam_search(
        model, source_BSE, source_lengths_B, embed, best_tokens, start_id, end_id, max_lengths_B, 1, all_finished
    )
    return [hypothesis for [hypothesis] in found]


@torch.no_grad()
def beam_search(
    model: EncoderDecoder[EncodingT, StateT],
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    best_tokens: BestTokens,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    beam_size: int,
    all_finished: Agreement = bool,
) -> list[list[Hypothesis]]:
    """Return the hypotheses of each sentence, the best by score first: ``beam_size``, or as many as there are.

    A finished hypothesis keeps its place in the beam, with its score frozen, and the search of a sentence ends when
    all of its beam is finished. A hypothesis that reaches the maximum length counts as finished.
    """
    encoding, state = model.encode(source_BSE, source_lengths_B)
    beam, steps = _first_beam(max_lengths_B, beam_size), list[_Step]()
    sentences_N = torch.arange(len(max_lengths_B), device=max_lengths_B.device)  # of the rows of encoding and state
    rows_BK = sentences_N[:, None].expand(-1, beam_size)  # where the state before each hypothesis' last token is
    tokens_BK = torch.full_like(rows_BK, start_id)
    while not all_finished(not bool(beam.goes_on_BK.any())):
        hypotheses_N = _computed(beam)
        rows_N, sentences_before_N = rows_BK.flatten()[hypotheses_N], sentences_N
        sentences_N = hypotheses_N // beam_size
        state = state.select(rows_N)
        if not torch.equal(sentences_N, sentences_before_N):  # or else the encoding need not be copied
            encoding = encoding.select(rows_N)
        outputs_NX, state = model.step(embed(tokens_BK.flatten()[hypotheses_N]), state, encoding)
        candidates = _spread(*best_tokens(outputs_NX, beam_size), hypotheses_N, beam.goes_on_BK)
        beam, step = _grow(beam, *candidates, end_id, len(steps) + 1 >= max_lengths_B)
        steps.append(step)
        tokens_BK, rows_M = step.tokens_BK, hypotheses_N.new_zeros(beam.goes_on_BK.numel())
        rows_M[hypotheses_N] = torch.arange(len(hypotheses_N), device=hypotheses_N.device)
        rows_BK = rows_M.view_as(tokens_BK).gather(1, step.parents_BK)
    return _ranked(beam, steps, end_id, max_lengths_B)


class _Beam(NamedTuple):
    """K hypotheses of each sentence. Those that do not exist, where tokens are too few, have score -inf."""

    scores_BK: Tensor  # float64 sum of log-probabilities
    lengths_BK: Tensor  # int64 number of tokens, the end among them
    goes_on_BK: Tensor  # bool, True for those that exist and have not finished


class _Step(NamedTuple):
    """What a step has made of each beam: the last token of its hypotheses, and which of the beam before they continue.

    Finished ones are continued by end_id, for nothing.
    """

    tokens_BK: Tensor
    parents_BK: Tensor


def _first_beam(max_lengths_B: Tensor, beam_size: int) -> _Beam:
    shape = (len(max_lengths_B), beam_size)
    scores_BK = torch.full(shape, -torch.inf, dtype=torch.float64, device=max_lengths_B.device)
    scores_BK[:, 0] = 0.0  # before the first token there is one hypothesis
    goes_on_BK = (scores_BK == 0) & (max_lengths_B > 0)[:, None]
    return _Beam(scores_BK, torch.zeros_like(scores_BK, dtype=torch.int64), goes_on_BK)


def _computed(beam: _Beam) -> Tensor:
    """Return the numbers, within B·K, of the hypotheses that go on; of a rank that has finished that of any one."""
    hypotheses_N = beam.goes_on_BK.flatten().nonzero()[:, 0]
    return hypotheses_N if len(hypotheses_N) else hypotheses_N.new_zeros(1)


def _spread(
    log_probabilities_NC: Tensor, ids_NC: Tensor, hypotheses_N: Tensor, goes_on_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and ids of the candidates of all hypotheses, [B, K, C] each.

    One that has finished has a single candidate, whose id means nothing, with log-probability 0.
    """
    shape = (*goes_on_BK.shape, ids_NC.shape[1])
    steps_BKC = torch.full(shape, -torch.inf, dtype=torch.float64, device=ids_NC.device)
    ids_BKC = ids_NC.new_zeros(shape)
    steps_BKC.flatten(0, 1)[hypotheses_N] = log_probabilities_NC.double()
    ids_BKC.flatten(0, 1)[hypotheses_N] = ids_NC
    frozen_C = torch.full_like(steps_BKC[0, 0], -torch.inf)
    frozen_C[0] = 0.0
    return torch.where(goes_on_BK[:, :, None], steps_BKC, frozen_C), ids_BKC


def _grow(beam: _Beam, steps_BKC: Tensor, ids_BKC: Tensor, end_id: int, at_limit_B: Tensor) -> tuple[_Beam, _Step]:
    """Return the K best of a sentence's K·C continuations.

    The continuations of one hypothesis have one length, so its K likeliest tokens are all that can be among the best.
    """
    sums_BKC = beam.scores_BK[:, :, None] + steps_BKC
    lengths_BK = beam.lengths_BK + beam.goes_on_BK
    means_BKC = sums_BKC / lengths_BK[:, :, None].clamp(min=1)
    best_BK = means_BKC.flatten(1).topk(beam.scores_BK.shape[1], dim=1).indices
    parents_BK = best_BK // ids_BKC.shape[2]
    is_end_BKC = ~beam.goes_on_BK[:, :, None] | steps_BKC.isneginf()
    tokens_BK = ids_BKC.masked_fill(is_end_BKC, end_id).flatten(1).gather(1, best_BK)
    goes_on_BK = beam.goes_on_BK.gather(1, parents_BK) & (tokens_BK != end_id) & ~at_limit_B[:, None]
    scores_BK = sums_BKC.flatten(1).gather(1, best_BK)
    return _Beam(scores_BK, lengths_BK.gather(1, parents_BK), goes_on_BK), _Step(tokens_BK, parents_BK)


def _ranked(beam: _Beam, steps: Sequence[_Step], end_id: int, max_lengths_B: Tensor) -> list[list[Hypothesis]]:
    """Return the hypotheses of each sentence, the best first; those that do not exist are left out."""
    means_BK = beam.scores_BK / beam.lengths_BK.clamp(min=1)
    scores_BK, places_BK = means_BK.sort(dim=1, descending=True, stable=True)
    tokens_TBK = list[Tensor]()
    for step in reversed(steps):
        tokens_TBK.append(step.tokens_BK.gather(1, places_BK))
        places_BK = step.parents_BK.gather(1, places_BK)
    empty_BK0 = places_BK.new_empty(*places_BK.shape, 0)
    tokens_BKT = torch.stack(tokens_TBK[::-1], dim=2) if tokens_TBK else empty_BK0
    return [
        [
            _hypothesis(ids, score, limit, end_id)
            for place, (ids, score) in enumerate(zip(tokens_KT, scores_K, strict=True))
            if not place or score > -torch.inf
        ]
        for tokens_KT, scores_K, limit in zip(
            tokens_BKT.tolist(), scores_BK.tolist(), max_lengths_B.tolist(), strict=True
        )
    ]


def _hypothesis(tokens: list[int], score: float, limit: int, end_id: int) -> Hypothesis:
    """Cut the tokens at ``end_id`` or the maximum length."""
    ids = tokens[:limit]
    ends = end_id in ids
    return Hypothesis(ids[: ids.index(end_id)] if ends else ids, score, is_cut=limit > 0 and not ends)
