"""Find the most likely classes of an output layer whose rows are divided among ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from dist_s2s.sharded.output.classes import (
    OutputShard,
    check_forbidden,
    check_hidden,
    exponentiate_,
    matmul_dtype,
    merge_sums,
    sum_dtype,
)
from dist_s2s.sharded.output.tokens import agree, gather_tokens, return_tokens
from dist_s2s.sharded.tables.embedding import DistributedEmbedding


@torch.no_grad()
def top_k(
    table: DistributedEmbedding,
    bias: DistributedEmbedding | None,
    hidden: Tensor,
    k: int,
    forbidden: Sequence[int] = (),
    *,
    num_classes: int,
    chunk_elements: int,
) -> tuple[Tensor, Tensor]:
    """Return the k most likely classes of each token, exactly, leaving out ``forbidden`` ones (collective).

    The ranks exchange how many tokens they have, then their hidden states; each sends back the k best of its classes
    with their logsumexp, in two more exchanges, and the results are merged.

    Args:
        table: the output table, [V, H].
        bias: a table of one column, or None.
        hidden: [..., H]; ranks may have different numbers of tokens, or none.
        k: number of classes for each token, the same on every rank.
        forbidden: ids of classes whose logits count as -inf, the same on every rank.
        num_classes: ids from here on are not classes.
        chunk_elements: number of logits that a rank computes at a time.

    Returns:
        Log-probabilities, float32 or float64 [..., k], in descending order, and ids, int64 [..., k]. Of two equally
        likely classes the lower id comes first; which of several that tie for the k-th place is returned is undefined.
        If fewer than k classes are allowed, the remaining places have log-probability -inf and a meaningless id.

    Raises:
        IndexError: on every rank, for a forbidden id that is out of range.
        TypeError: on every rank, for hidden states of a wrong type.
        ValueError: on every rank, for hidden states of a wrong shape or device, for a k below 1, if all classes are
            forbidden, and for arguments that differ between ranks.
    """
    error = check_hidden(hidden, table)
    if error is None and not (isinstance(k, int) and k >= 1):
        error = ValueError(f"k must be a whole number of at least 1, but is {k} on rank {table.rank}")
    error = error or check_forbidden(forbidden, num_classes, table.rank)
    usable = hidden if error is None else table.weight.new_empty(0, table.embedding_dim)
    tokens = usable.reshape(-1, table.embedding_dim).to(matmul_dtype(usable))
    settings = {
        "the dtype of matrix products": tokens.dtype,
        "k": k,
        "forbidden": sorted(set(forbidden)) if error is None else None,
    }
    counts = [count for (count,) in agree(table, "top_k", error, settings, [len(tokens)])]
    shard = OutputShard.of(table, bias, num_classes, tokens.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        everyone = gather_tokens(tokens, counts, table)
        best, ids = _best_of_shard(shard, everyone, k, forbidden, chunk_elements)
        all_best = torch.stack(return_tokens(best, counts, table))
        all_ids = torch.stack(return_tokens(ids, counts, table))
        log_probabilities, ids = _merge(all_best, all_ids, k)
    return log_probabilities.view(*hidden.shape[:-1], k), ids.view(*hidden.shape[:-1], k)


def _best_of_shard(
    shard: OutputShard, hidden: Tensor, k: int, forbidden: Sequence[int], chunk_elements: int
) -> tuple[Tensor, Tensor]:
    """Return the K best local logits, the largest logit and the sum of exp, [N, K + 2], and K ids, [N, K], of N tokens.

    K is the same on every rank; ranks that hold fewer classes pad with -inf.
    """
    width = min(k, shard.widest)
    held = min(width, len(shard.weight))
    best = hidden.new_full((len(hidden), width + 2), -torch.inf, dtype=sum_dtype(hidden.dtype))
    ids = hidden.new_zeros(len(hidden), width, dtype=torch.int64)
    for tokens, logits in shard.allowed_logits(hidden, forbidden, chunk_elements):
        best[tokens, :held], columns = logits.topk(held, dim=1)
        ids[tokens, :held] = shard.partition.ids_of_rows(shard.rank, columns)
        best[tokens, -2], best[tokens, -1] = exponentiate_(logits)
    return best, ids


def _merge(best: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best, two tensors [n, k], of what W ranks found for n tokens, [W, n, K + 2] and [W, n, K]."""
    logits, largest, sums = best[..., :-2], best[..., -2], best[..., -1]
    top, total = merge_sums(largest, sums)
    log_probabilities, ids = logits.transpose(0, 1).flatten(1), ids.transpose(0, 1).flatten(1)
    log_probabilities = log_probabilities.sub(top[:, None]).sub_(total.log_()[:, None])
    ids, order = ids.sort(dim=1)
    log_probabilities, places = log_probabilities.gather(1, order).sort(dim=1, descending=True, stable=True)
    missing = max(0, k - ids.shape[1])
    return (
        pad(log_probabilities[:, :k], (0, missing), value=-torch.inf),
        pad(ids.gather(1, places)[:, :k], (0, missing)),
    )
