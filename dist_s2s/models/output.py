"""The likeliest tokens, from logits that one rank holds whole."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


def best_of_logits(logits_NV: Tensor, k: int, forbidden: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [N, k], falling, and int64 ids [N, k] of the k likeliest tokens of each row.

    forbidden: ids that are never chosen, such as padding and the unknown word: as if their logits were -inf. If fewer
        than k ids are left, the other columns have log-probability -inf and an id that means nothing.

    The log-probabilities are float32, or float64 if the logits are. ``logits_NV`` is not modified. No collective.
    Raises ValueError if every id is forbidden.
    """
    vocabulary_size = logits_NV.shape[-1]
    if len(set(forbidden)) >= vocabulary_size:
        raise ValueError(f"forbidden holds all {vocabulary_size} ids of the vocabulary; at least one must be allowed")
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32), copy=True)
    logits_NV[:, forbidden] = float("-inf")
    log_probabilities, ids = logits_NV.log_softmax(dim=-1).topk(min(k, vocabulary_size), dim=-1)
    missing = (0, k - ids.shape[-1])
    return pad(log_probabilities, missing, value=float("-inf")), pad(ids, missing)
