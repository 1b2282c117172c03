"""Greedy and beam search over batches.

The caller supplies ``embed``, which turns target ids [N] into rows [N, E]. Where that lookup is collective, every rank
must call it equally often. So the caller also supplies ``all_finished``, which turns this rank's "I have finished" into
the same answer on all ranks; the search goes on until it is True, on finished sentences too.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dist_s2s.seq2seq.model import Seq2Seq

# Shapes: B sentences, S source positions, E embedding_dim, V target vocabulary, K beam_size, N = B·K.

Embed = Callable[[Tensor], Tensor]
Agreement = Callable[[bool], bool]


@torch.no_grad()
def greedy_search(
    model: Seq2Seq,
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    forbidden: list[int],
    all_finished: Agreement = bool,
) -> list[list[int]]:
    """The likeliest token at each step, until ``end_id`` or a sentence's maximum length; ids without start and end.

    forbidden: ids that are never chosen, such as padding and the unknown word.
    """
    encoding, state = model.encode(source_BSE, source_lengths_B)
    tokens_B = torch.full_like(source_lengths_B, start_id)
    finished_B = max_lengths_B < 1
    chosen: list[Tensor] = []
    while not all_finished(bool(finished_B.all())):
        logits_BV, state = model.next_logits(embed(tokens_B), state, encoding)
        logits_BV[:, forbidden] = float("-inf")
        tokens_B = logits_BV.argmax(dim=-1).masked_fill(finished_B, end_id)
        chosen.append(tokens_B)
        finished_B = finished_B | (tokens_B == end_id) | (len(chosen) >= max_lengths_B)
    if not chosen:
        return [[] for _ in tokens_B]
    return [
        _until(row, end_id)[:limit]
        for row, limit in zip(torch.stack(chosen, 1).tolist(), max_lengths_B.tolist(), strict=True)
    ]


@torch.no_grad()
def beam_search(
    model: Seq2Seq,
    source_BSE: Tensor,
    source_lengths_B: Tensor,
    embed: Embed,
    start_id: int,
    end_id: int,
    max_lengths_B: Tensor,
    forbidden: list[int],
    beam_size: int,
    all_finished: Agreement = bool,
) -> list[list[int]]:
    """The best of ``beam_size`` hypotheses by log-probability / length, the end token counted in both.

    A finished hypothesis keeps its place in the beam, with its score frozen, and the search of a sentence ends when
    all of its beam is finished. A hypothesis that reaches the maximum length counts as finished.
    """
    size, device = len(source_lengths_B), source_lengths_B.device
    encoding, state = model.encode(source_BSE, source_lengths_B)
    rows_N = torch.arange(size, device=device).repeat_interleave(beam_size)
    encoding = type(encoding)(*(part[rows_N] for part in encoding))
    state = state.select(rows_N)
    first_BK = torch.arange(size, device=device)[:, None] * beam_size
    scores_BK = torch.full((size, beam_size), float("-inf"), device=device)
    scores_BK[:, 0] = 0.0  # the K copies are equal before the first token: only one may branch
    tokens_N = torch.full((size * beam_size,), start_id, device=device)
    finished_BK = (max_lengths_B < 1)[:, None].expand(size, beam_size)
    lengths_BK = torch.zeros_like(scores_BK)
    history_BKT = torch.empty(size, beam_size, 0, dtype=torch.int64, device=device)
    while not all_finished(bool(finished_BK.all())):
        logits_NV, state = model.next_logits(embed(tokens_N), state, encoding)
        logits_NV[:, forbidden] = float("-inf")
        steps_BKV = logits_NV.float().log_softmax(dim=-1).view(size, beam_size, -1)
        steps_BKV = steps_BKV.masked_fill(finished_BK[:, :, None], float("-inf"))
        steps_BKV[:, :, end_id] = steps_BKV[:, :, end_id].masked_fill(finished_BK, 0.0)
        sums_BKV = scores_BK[:, :, None] + steps_BKV
        grown_BKV = (lengths_BK + ~finished_BK)[:, :, None].clamp(min=1)
        _, best_BK = (sums_BKV / grown_BKV).flatten(1).topk(beam_size, dim=1)
        parents_BK, tokens_BK = best_BK // steps_BKV.shape[-1], best_BK % steps_BKV.shape[-1]
        scores_BK = sums_BKV.flatten(1).gather(1, best_BK)
        lengths_BK = grown_BKV[:, :, 0].gather(1, parents_BK)
        history_BKT = torch.cat(
            (history_BKT.gather(1, parents_BK[:, :, None].expand_as(history_BKT)), tokens_BK[:, :, None]),
            dim=2,
        )
        at_limit_BK = (history_BKT.shape[2] >= max_lengths_B)[:, None]
        finished_BK = finished_BK.gather(1, parents_BK) | (tokens_BK == end_id) | at_limit_BK
        state = state.select((first_BK + parents_BK).flatten())
        tokens_N = tokens_BK.flatten()
    best_B = (scores_BK / lengths_BK.clamp(min=1)).argmax(dim=1)
    rows = history_BKT[torch.arange(size, device=device), best_B].tolist()
    return [_until(row, end_id)[:limit] for row, limit in zip(rows, max_lengths_B.tolist(), strict=True)]


def _until(row: list[int], end_id: int) -> list[int]:
    return row[: row.index(end_id)] if end_id in row else row
