"""The log-probabilities of all classes of an output layer whose rows are divided among ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dist_s2s.sharded.output.classes import OutputShard, check_forbidden, check_hidden, matmul_dtype, sum_dtype
from dist_s2s.sharded.output.tokens import agree, gather_tokens, return_tokens
from dist_s2s.sharded.tables.embedding import DistributedEmbedding


@torch.no_grad()
def log_probabilities(
    table: DistributedEmbedding,
    bias: DistributedEmbedding | None,
    hidden: Tensor,
    forbidden: Sequence[int] = (),
    *,
    num_classes: int,
    chunk_elements: int,
) -> Tensor:
    """Return the log-probability of each class after each token, leaving out ``forbidden`` ones (collective).

    The ranks exchange how many tokens they have, then their hidden states; each sends back the logits of its classes.
    Unlike ``top_k``, this brings all logits of a rank's tokens to it: give it few tokens at a time.

    Args:
        table: the output table, [V, H].
        bias: a table of one column, or None.
        hidden: [..., H]; ranks may have different numbers of tokens, or none.
        forbidden: ids of classes whose logits count as -inf, the same on every rank.
        num_classes: C; ids from here on are not classes.
        chunk_elements: number of logits that a rank computes at a time.

    Returns:
        float32 or float64 [..., C], in the order of ids; -inf for forbidden ones.

    Raises:
        IndexError: on every rank, for a forbidden id that is out of range.
        TypeError: on every rank, for hidden states of a wrong type.
        ValueError: on every rank, for hidden states of a wrong shape or device, if all classes are forbidden, and for
            arguments that differ between ranks.
    """
    error = check_hidden(hidden, table) or check_forbidden(forbidden, num_classes, table.rank)
    usable = hidden if error is None else table.weight.new_empty(0, table.embedding_dim)
    tokens = usable.reshape(-1, table.embedding_dim).to(matmul_dtype(usable))
    settings = {
        "the dtype of matrix products": tokens.dtype,
        "forbidden": sorted(set(forbidden)) if error is None else None,
    }
    counts = [count for (count,) in agree(table, "log_probabilities", error, settings, [len(tokens)])]
    shard = OutputShard.of(table, bias, num_classes, tokens.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        everyone = gather_tokens(tokens, counts, table)
        logits = return_tokens(_logits_of_shard(shard, everyone, forbidden, chunk_elements), counts, table)
    whole = logits[0].new_empty(len(tokens), num_classes)
    for rank, theirs in enumerate(logits):
        ids = table.partition.ids(rank, 0, table.partition.rows_below(rank, num_classes)).to(whole.device)
        whole[:, ids] = theirs[:, : len(ids)]
    return whole.log_softmax(dim=1).view(*hidden.shape[:-1], num_classes)


def _logits_of_shard(shard: OutputShard, hidden: Tensor, forbidden: Sequence[int], chunk_elements: int) -> Tensor:
    """Return the logits of N tokens for the classes of this shard, [N, widest]; the columns after them mean nothing."""
    logits = hidden.new_zeros(len(hidden), shard.widest, dtype=sum_dtype(hidden.dtype))
    for tokens, found in shard.allowed_logits(hidden, forbidden, chunk_elements):
        logits[tokens, : len(shard.weight)] = found
    return logits
