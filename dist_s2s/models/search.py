"""Greedy and beam search over batches.

The caller supplies two functions, each called once a step, in this order. They may be collective: then every rank must
call them equally often.

- ``embed`` turns target ids [N] into rows [N, E].
- ``best_tokens`` turns the model's outputs [N, X] and a number k into the k likeliest tokens to come after each row,
  of those that may be chosen: log-probabilities [N, k], float32 or float64, falling, and int64 ids [N, k]. Where they
  are fewer than k, the other columns have log-probability -inf; their ids are ignored.

So the caller also supplies ``all_finished``, which turns this rank's "I have finished" into the same answer on all
ranks; the search goes on until it is True, on finished sentences too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.protocols import EncoderDecoder, EncodingT, StateT

# Shapes: B sentences, S source positions, T target positions so far, E embedding_dim, X the model's outputs,
# K beam_size, C = K candidates of each hypothesis, N = B·K (greedy: N = B).

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


@torch.no_grad()
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
    """Take the likeliest token at each step, until ``end_id`` or a sentence's maximum length."""
    encoding, state = model.encode(source_BSE, source_lengths_B)
    tokens_B = torch.full_like(source_lengths_B, start_id)
    finished_B = max_lengths_B < 1
    scores_B = torch.zeros_like(max_lengths_B, dtype=torch.float64)
    lengths_B = torch.zeros_like(max_lengths_B)
    chosen: list[Tensor] = []
    while not all_finished(bool(finished_B.all())):
        outputs_BX, state = model.step(embed(tokens_B), state, encoding)
        log_probabilities_B1, ids_B1 = best_tokens(outputs_BX, 1)
        tokens_B = ids_B1[:, 0].masked_fill(finished_B, end_id)
        scores_B += log_probabilities_B1[:, 0].masked_fill(finished_B, 0.0)
        lengths_B += ~finished_B
        chosen.append(tokens_B)
        finished_B = finished_B | (tokens_B == end_id) | (len(chosen) >= max_lengths_B)
    history_BT = torch.stack(chosen, 1) if chosen else tokens_B.new_empty(len(tokens_B), 0)
    return _hypotheses(history_BT, scores_B / lengths_B.clamp(min=1), end_id, max_lengths_B)


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
    sentences_B = torch.arange(len(source_lengths_B), device=source_lengths_B.device)
    rows_N = sentences_B.repeat_interleave(beam_size)
    encoding, state = encoding.select(rows_N), state.select(rows_N)
    beam = _first_beam(max_lengths_B, beam_size)
    tokens_N = torch.full_like(rows_N, start_id)
    while not all_finished(bool(beam.finished_BK.all())):
        outputs_NX, state = model.step(embed(tokens_N), state, encoding)
        log_probabilities_NC, ids_NC = best_tokens(outputs_NX, beam_size)
        beam, parents_BK = _grow(beam, log_probabilities_NC, ids_NC, end_id, max_lengths_B)
        state = state.select((sentences_B[:, None] * beam_size + parents_BK).flatten())
        tokens_N = beam.history_BKT[:, :, -1].flatten()
    scores_BK, order_BK = (beam.scores_BK / beam.lengths_BK.clamp(min=1)).sort(dim=1, descending=True, stable=True)
    history_NT = beam.history_BKT.gather(1, order_BK[:, :, None].expand_as(beam.history_BKT)).flatten(0, 1)
    found = _hypotheses(history_NT, scores_BK.flatten(), end_id, max_lengths_B.repeat_interleave(beam_size))
    return [
        [best, *(hypothesis for hypothesis in others if hypothesis.score > float("-inf"))]
        for best, *others in (found[begin : begin + beam_size] for begin in range(0, len(found), beam_size))
    ]


class _Beam(NamedTuple):
    """K hypotheses of each sentence. Those that do not exist, where tokens are too few, have score -inf."""

    history_BKT: Tensor  # int64 tokens, end_id from the end on
    scores_BK: Tensor  # sum of log-probabilities
    lengths_BK: Tensor  # int64 number of tokens, the first end_id among them
    finished_BK: Tensor  # bool


def _first_beam(max_lengths_B: Tensor, beam_size: int) -> _Beam:
    history_BKT = max_lengths_B.new_empty(len(max_lengths_B), beam_size, 0, dtype=torch.int64)
    scores_BK = torch.full(history_BKT.shape[:2], float("-inf"), device=max_lengths_B.device)
    scores_BK[:, 0] = 0.0  # the K copies are equal before the first token: only one may branch
    finished_BK = (max_lengths_B < 1)[:, None].expand_as(scores_BK)
    return _Beam(history_BKT, scores_BK, torch.zeros_like(scores_BK, dtype=torch.int64), finished_BK)


def _grow(
    beam: _Beam, log_probabilities_NC: Tensor, ids_NC: Tensor, end_id: int, max_lengths_B: Tensor
) -> tuple[_Beam, Tensor]:
    """Return the K best of a sentence's K·C continuations, and which hypothesis, [B, K], each of them continues.

    The continuations of one hypothesis have one length, so its K likeliest tokens are all that can be among the best.
    """
    size, beam_size = beam.scores_BK.shape
    frozen_C = log_probabilities_NC.new_full((beam_size,), float("-inf"))
    frozen_C[0] = 0.0  # a finished hypothesis has one continuation: another end_id, for nothing
    finished_BK1 = beam.finished_BK[:, :, None]
    steps_BKC = torch.where(finished_BK1, frozen_C, log_probabilities_NC.reshape(size, beam_size, beam_size))
    ids_BKC = ids_NC.reshape(size, beam_size, beam_size).masked_fill(finished_BK1 | steps_BKC.isneginf(), end_id)
    sums_BKC = beam.scores_BK[:, :, None] + steps_BKC
    grown_BK = beam.lengths_BK + ~beam.finished_BK
    means_BKC = sums_BKC / grown_BK[:, :, None].clamp(min=1)
    best_BK = means_BKC.flatten(1).topk(beam_size, dim=1).indices
    parents_BK = best_BK // beam_size
    tokens_BK = ids_BKC.flatten(1).gather(1, best_BK)
    history_BKT = beam.history_BKT.gather(1, parents_BK[:, :, None].expand_as(beam.history_BKT))
    history_BKT = torch.cat((history_BKT, tokens_BK[:, :, None]), dim=2)
    at_limit_B1 = (history_BKT.shape[2] >= max_lengths_B)[:, None]
    grown = _Beam(
        history_BKT,
        sums_BKC.flatten(1).gather(1, best_BK),
        grown_BK.gather(1, parents_BK),
        beam.finished_BK.gather(1, parents_BK) | (tokens_BK == end_id) | at_limit_B1,
    )
    return grown, parents_BK


def _hypotheses(tokens_BT: Tensor, scores_B: Tensor, end_id: int, max_lengths_B: Tensor) -> list[Hypothesis]:
    """Cut each row at its ``end_id`` or its maximum length."""
    found = []
    rows = zip(tokens_BT.tolist(), scores_B.tolist(), max_lengths_B.tolist(), strict=True)
    for row, score, limit in rows:
        ids = row[:limit]
        ends = end_id in ids
        if ends:
            ids = ids[: ids.index(end_id)]
        found.append(Hypothesis(ids, score, is_cut=limit > 0 and not ends))
    return found
