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
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.protocols import EncoderDecoder, EncodingT, StateT

# Shapes: B sentences, S source positions, T target positions so far, E embedding_dim, X the model's outputs,
# K beam_size, C = K candidates of each hypothesis, N = B·K (greedy: N = B).

_MOST_KEPT = 0.75  # a batch shrinks when a quarter of its sentences have been found, as that copies the rest

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
    numbers_B, limits_B = torch.arange(len(max_lengths_B), device=max_lengths_B.device), max_lengths_B
    rows_BK = numbers_B[:, None].expand(-1, beam_size)
    encoding, state = encoding.select(rows_BK.flatten()), state.select(rows_BK.flatten())
    beam, tokens_N = _first_beam(limits_B, beam_size), torch.full_like(rows_BK.flatten(), start_id)
    found: dict[int, list[Hypothesis]] = {}
    while not all_finished(bool(beam.finished_BK.all())):
        outputs_NX, state = model.step(embed(tokens_N), state, encoding)
        log_probabilities_NC, ids_NC = best_tokens(outputs_NX, beam_size)
        beam, parents_BK = _grow(beam, log_probabilities_NC, ids_NC, end_id, limits_B)
        begins_B1 = torch.arange(0, len(tokens_N), beam_size, device=tokens_N.device)[:, None]
        rows_BK, left_B = begins_B1 + parents_BK, ~beam.finished_BK.all(dim=1)
        if 0 < left_B.sum() <= _MOST_KEPT * len(left_B):  # a rank that has finished still needs rows to go on with
            done_B = ~left_B
            found |= _ranked(numbers_B[done_B], beam.select(done_B), end_id, limits_B[done_B])
            numbers_B, limits_B, rows_BK = numbers_B[left_B], limits_B[left_B], rows_BK[left_B]
            beam = beam.select(left_B)
            encoding = encoding.select(rows_BK.flatten())  # a hypothesis and its parent have the same source
        state, tokens_N = state.select(rows_BK.flatten()), beam.history_BKT[:, :, -1].flatten()
    found |= _ranked(numbers_B, beam, end_id, limits_B)
    return [found[number] for number in range(len(max_lengths_B))]


class _Beam(NamedTuple):
    """K hypotheses of each sentence. Those that do not exist, where tokens are too few, have score -inf."""

    history_BKT: Tensor  # int64 tokens, end_id from the end on
    scores_BK: Tensor  # sum of log-probabilities
    lengths_BK: Tensor  # int64 number of tokens, the first end_id among them
    finished_BK: Tensor  # bool

    def select(self, chosen_B: Tensor) -> "_Beam":
        """Return the hypotheses of the sentences that are True in ``chosen_B``, bool [B]."""
        return _Beam(*(values[chosen_B] for values in self))


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


def _ranked(numbers_B: Tensor, beam: _Beam, end_id: int, max_lengths_B: Tensor) -> dict[int, list[Hypothesis]]:
    """Return the hypotheses of each sentence by its number, the best first; those that do not exist are left out."""
    means_BK = beam.scores_BK / beam.lengths_BK.clamp(min=1)
    scores_BK, order_BK = means_BK.sort(dim=1, descending=True, stable=True)
    history_BKT = beam.history_BKT.gather(1, order_BK[:, :, None].expand_as(beam.history_BKT))
    beam_size = beam.scores_BK.shape[1]
    limits_N = max_lengths_B.repeat_interleave(beam_size)
    hypotheses = iter(_hypotheses(history_BKT.flatten(0, 1), scores_BK.flatten(), end_id, limits_N))
    return {
        number: [
            each for place, each in enumerate(islice(hypotheses, beam_size)) if not place or each.score > -torch.inf
        ]
        for number in numbers_B.tolist()
    }


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
