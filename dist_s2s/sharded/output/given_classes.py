"""The log-probabilities of given classes of an output layer whose rows are divided among ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.output.classes import OutputShard, exponentiate_, matmul_dtype, merge_sums, sum_dtype
from dist_s2s.sharded.output.tokens import agree, gather_tokens, return_tokens
from dist_s2s.sharded.tables.embedding import DistributedEmbedding


@torch.no_grad()
def given_classes(
    table: DistributedEmbedding,
    bias: DistributedEmbedding | None,
    hidden: Tensor,
    ids: Tensor,
    forbidden: Sequence[int] = (),
    *,
    num_classes: int,
    chunk_elements: int,
) -> Tensor:
    """Return the log-probabilities of M given classes of each token, leaving out ``forbidden`` ones (collective).

    The ranks exchange how many tokens they have, then their hidden states and ids; each sends back the logits of the
    classes that it holds, with its logsumexp.

    Args:
        table: the output table, [V, H].
        bias: a table of one column, or None.
        hidden: [N, H]; ranks may have different numbers of tokens, or none.
        ids: int64 [N, M]; M is the same on every rank.
        forbidden: ids of classes whose logits count as -inf, the same on every rank.
        num_classes: ids from here on are not classes.
        chunk_elements: number of logits that a rank computes at a time.

    Returns:
        float32 or float64 [N, M].

    Raises:
        IndexError: on every rank, for an id that is no class.
        ValueError: on every rank, for arguments that differ between ranks.
    """
    tokens, width = hidden.to(matmul_dtype(hidden)), ids.shape[1]
    wrong = (ids < 0) | (ids >= num_classes)
    error = IndexError(f"id {int(ids[wrong][0])} is outside [0, {num_classes})") if bool(wrong.any()) else None
    settings = {"the dtype of matrix products": tokens.dtype, "ids": width, "forbidden": sorted(set(forbidden))}
    counts = [count for (count,) in agree(table, "given_classes", error, settings, [len(tokens)])]
    shard = OutputShard.of(table, bias, num_classes, tokens.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        everyone, everyones_ids = gather_tokens(tokens, counts, table), gather_tokens(ids, counts, table)
        found = _given_of_shard(shard, everyone, everyones_ids, forbidden, chunk_elements)
        by_rank = torch.stack(return_tokens(found, counts, table))
    logits, largest, sums = by_rank[..., :-2], by_rank[..., -2], by_rank[..., -1]
    top, total = merge_sums(largest, sums)
    return logits.amax(dim=0) - top[:, None] - total.log()[:, None]


def _given_of_shard(
    shard: OutputShard, hidden: Tensor, ids: Tensor, forbidden: Sequence[int], chunk_elements: int
) -> Tensor:
    """Return M logits, -inf of other ranks' classes, the largest logit and the sum of exp, [N, M + 2], of N tokens."""
    found = hidden.new_full((len(hidden), ids.shape[1] + 2), -torch.inf, dtype=sum_dtype(hidden.dtype))
    for tokens, logits in shard.allowed_logits(hidden, forbidden, chunk_elements):
        places, columns = shard.find(ids[tokens].flatten())
        rows = places // ids.shape[1]
        found[tokens][rows, places % ids.shape[1]] = logits[rows, columns]
        found[tokens, -2], found[tokens, -1] = exponentiate_(logits)
    return found
