"""The likeliest tokens, from logits that one rank holds whole."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

_CLASSES_AT_A_TIME = 1024


def apply_output(layer: nn.Module, states_NH: Tensor) -> Tensor:
    """Return ``layer(states_NH)``, [N, X], for a search.

    An nn.Linear is applied to 1,024 classes at a time: with the few states of a step, a CPU multiplies up to 1.5 times
    as fast if what it reads of the weights stays in its cache.
    """
    if type(layer) is not nn.Linear or states_NH.device.type != "cpu" or layer.out_features <= _CLASSES_AT_A_TIME:
        outputs_NX: Tensor = layer(states_NH)
        return outputs_NX
    weights = layer.weight.split(_CLASSES_AT_A_TIME)
    biases = [None] * len(weights) if layer.bias is None else layer.bias.split(_CLASSES_AT_A_TIME)
    return torch.cat([linear(states_NH, *part) for part in zip(weights, biases, strict=True)], dim=-1)


def linear_of(weight_OH: Tensor, bias_O: Tensor) -> nn.Linear:
    """Return an nn.Linear of these very tensors, without gradients."""
    with torch.device("meta"):
        layer = nn.Linear(weight_OH.shape[1], len(weight_OH)).requires_grad_(False)
    layer.load_state_dict({"weight": weight_OH, "bias": bias_O}, assign=True)
    return layer


def given_of_logits(logits_NV: Tensor, ids_NM: Tensor, forbidden: Sequence[int]) -> Tensor:
    """Return the log-probabilities [N, M] of given tokens, int64 [N, M], as ``best_of_logits`` has them."""
    return log_probabilities(logits_NV, forbidden).gather(1, ids_NM)


def best_of_logits(logits_NV: Tensor, k: int, forbidden: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [N, k], falling, and int64 ids [N, k] of the k likeliest tokens of each row.

    forbidden: ids that are never chosen, such as padding and the unknown word: as if their logits were -inf. If fewer
        than k ids are left, the other columns have log-probability -inf and an id that means nothing.

    The log-probabilities are float32, or float64 if the logits are. ``logits_NV`` is not modified. No collective.
    Raises ValueError if every id is forbidden.
    """
    return best_of(log_probabilities(logits_NV, forbidden), k)


def best_of(log_probabilities_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest and their ids; see ``best_of_logits``."""
    vocabulary_size = log_probabilities_NV.shape[-1]
    best, ids = log_probabilities_NV.topk(min(k, vocabulary_size), dim=-1)
    missing = (0, k - ids.shape[-1])
    return pad(best, missing, value=float("-inf")), pad(ids, missing)


def log_probabilities(logits_NV: Tensor, forbidden: Sequence[int]) -> Tensor:
    """Return the log-probabilities of all tokens, [N, V]; see ``best_of_logits``, which raises the same error."""
    vocabulary_size = logits_NV.shape[-1]
    if len(set(forbidden)) >= vocabulary_size:
        raise ValueError(f"forbidden holds all {vocabulary_size} ids of the vocabulary; at least one must be allowed")
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32), copy=True)
    logits_NV[:, forbidden] = float("-inf")
    return logits_NV.log_softmax(dim=-1)
