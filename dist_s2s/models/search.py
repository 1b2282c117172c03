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
from typing import NamedTuple

import torch
from torch import Tensor

from dist_s2s.models.lstm import Seq2Seq

# Shapes: B sentences, S source positions, T target positions so far, E embedding_dim, X the model's outputs,
# K beam_size, C = K candidates of each hypothesis, N = B·K (greedy: N = B).

Embed = Callable[[Tensor], Tensor]
BestTokens = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Agreement = Callable[[bool], bool]


@torch.no_grad()
def greedy_search(
    model: Seq2Seq,
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    best_tokens: BestTokens,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    all_finished: Agreement = bool,
) -> list[list[int]]:
    """The likeliest token at each step, until ``end_id`` or a sentence's maximum length; ids without start and end."""
    encoding, state = model.encode(source_BSE, source_lengths_B)
    tokens_B = torch.full_like(source_lengths_B, start_id)
    finished_B = max_lengths_B < 1
    chosen: list[Tensor] = []
    while not all_finished(bool(finished_B.all())):
        outputs_BX, state = model.next_outputs(embed(tokens_B), state, encoding)
        _, ids_B1 = best_tokens(outputs_BX, 1)
        tokens_B = ids_B1[:, 0].masked_fill(finished_B, end_id)
        chosen.append(tokens_B)
        finished_B = finished_B | (tokens_B == end_id) | (len(chosen) >= max_lengths_B)
    if not chosen:
        return [[] for _ in tokens_B]
    return _sentences(torch.stack(chosen, 1), end_id, max_lengths_B)


@torch.no_grad()
def beam_search(
    model: Seq2Seq,
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    best_tokens: BestTokens,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    beam_size: int,
    all_finished: Agreement = bool,
) -> list[list[int]]:
    """The best of ``beam_size`` hypotheses by log-probability / length, the end token counted in both.

    A finished hypothesis keeps its place in the beam, with its score frozen, and the search of a sentence ends when
    all of its beam is finished. A hypothesis that reaches the maximum length counts as finished.
    """
    encoding, state = model.encode(source_BSE, source_lengths_B)
    sentences_B = torch.arange(len(source_lengths_B), device=source_lengths_B.device)
    rows_N = sentences_B.repeat_interleave(beam_size)
    encoding = type(encoding)(*(part[rows_N] for part in encoding))
    state = state.select(rows_N)
    beam = _first_beam(max_lengths_B, beam_size)
    tokens_N = torch.full_like(rows_N, start_id)
    while not all_finished(bool(beam.finished_BK.all())):
        outputs_NX, state = model.next_outputs(embed(tokens_N), state, encoding)
        log_probabilities_NC, ids_NC = best_tokens(outputs_NX, beam_size)
        beam, parents_BK = _grow(beam, log_probabilities_NC, ids_NC, end_id, max_lengths_B)
        state = state.select((sentences_B[:, None] * beam_size + parents_BK).flatten())
        tokens_N = beam.history_BKT[:, :, -1].flatten()
    best_B = (beam.scores_BK / beam.lengths_BK.clamp(min=1)).argmax(dim=1)
    return _sentences(beam.history_BKT[sentences_B, best_B], end_id, max_lengths_B)


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
    """The K best of a sentence's K·C continuations, and which hypothesis, [B, K], each of them continues.

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


def _sentences(tokens_BT: Tensor, end_id: int, max_lengths_B: Tensor) -> list[list[int]]:
    """Each row up to its ``end_id`` or its maximum length."""
    rows = zip(tokens_BT.tolist(), max_lengths_B.tolist(), strict=True)
    return [_until(row, end_id)[:limit] for row, limit in rows]


def _until(row: list[int], end_id: int) -> list[int]:
    return row[: row.index(end_id)] if end_id in row else row
