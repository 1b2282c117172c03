"""The classes of an output layer that this rank holds, and their logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dist_s2s.sharded.rows.partition import RowPartition
from dist_s2s.sharded.tables.embedding import DistributedEmbedding

_HIDDEN_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class OutputShard:
    """The C classes whose rows this rank holds; with fewer classes than ranks, C is 0 on some ranks.

    Attributes:
        weight: [C, H] in the dtype of the matrix products.
        bias: [C] in the dtype of sums and exponentials, or None.
        partition: which rank owns which class.
        rank: this rank's number.
        widest: the largest C of any rank.
    """

    weight: Tensor
    bias: Tensor | None
    partition: RowPartition
    rank: int
    widest: int

    @classmethod
    def of(
        cls, table: DistributedEmbedding, bias: DistributedEmbedding | None, num_classes: int, dtype: torch.dtype
    ) -> Self:
        """Return the local classes among ids 0 … num_classes - 1.

        Args:
            table: the output table.
            bias: a table of one column, or None.
            num_classes: ids from here on are not classes.
            dtype: that of the matrix products.
        """
        classes = table.partition.rows_below(table.rank, num_classes)
        biases = None if bias is None else bias.weight.detach()[:classes, 0].to(sum_dtype(dtype))
        weight = table.weight.detach()[:classes].to(dtype)
        return cls(weight, biases, table.partition, table.rank, min(num_classes, table.partition.shard_size(0)))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [T, C], in the dtype of sums, from hidden [T, H], in the dtype of matrix products."""
        logits = (hidden @ self.weight.t()).to(sum_dtype(hidden.dtype))
        return logits if self.bias is None else logits.add_(self.bias)

    def find(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of ``ids``, int64 [T], are local classes, and their columns in the logits: two int64 tensors."""
        columns = self.partition.positions(ids) - self.partition.offset(self.rank)
        places = ((columns >= 0) & (columns < len(self.weight))).nonzero()[:, 0]
        return places, columns[places]

    def chunks(self, num_tokens: int, chunk_elements: int) -> Iterator[slice]:
        """Yield slices of the tokens, the same on every rank, each with about ``chunk_elements`` logits per rank."""
        size = max(1, chunk_elements // self.widest)
        for start in range(0, num_tokens, size):
            yield slice(start, min(start + size, num_tokens))

    def allowed_logits(
        self, hidden: Tensor, forbidden: Sequence[int], chunk_elements: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the logits of each chunk of the tokens [N, H], -inf where forbidden; see ``chunks`` and ``logits``."""
        _, unwanted = self.find(torch.tensor(forbidden, dtype=torch.int64, device=hidden.device))
        for tokens in self.chunks(len(hidden), chunk_elements):
            yield tokens, self.logits(hidden[tokens]).index_fill_(1, unwanted, -torch.inf)


def exponentiate_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Replace logits [T, C] by exp(logits - the token's largest); return the largest logits and the sums, both [T].

    Where there are no classes, or all logits are -inf, the largest is the lowest finite number and the sum is 0.
    """
    lowest = torch.finfo(logits.dtype).min
    largest = logits.amax(dim=1).clamp_(min=lowest) if logits.shape[1] else logits.new_full((len(logits),), lowest)
    return largest, logits.sub_(largest[:, None]).exp_().sum(dim=1)


def merge_sums(largest: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's largest logit and its sum of exp(logits - that), [T], from those of W ranks, [W, T]."""
    top = largest.amax(dim=0)
    return top, (sums * (largest - top).exp()).sum(dim=0)


def matmul_dtype(hidden: Tensor) -> torch.dtype:
    """Return autocast's dtype where it is enabled, else that of ``hidden``. As in autocast, float64 stays float64."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums and exponentials if matrix products are in ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_hidden(hidden: object, table: DistributedEmbedding) -> Exception | None:
    """Return the error for hidden states that do not fit this output table, or None."""
    where = f"on rank {table.rank}"
    if not isinstance(hidden, Tensor):
        return TypeError(f"hidden {where} must be a tensor, but is a {type(hidden).__name__}")
    if hidden.dtype not in _HIDDEN_DTYPES:
        return TypeError(f"hidden {where} must be floating-point, but its dtype is {hidden.dtype}")
    if hidden.dim() == 0 or hidden.shape[-1] != table.embedding_dim:
        return ValueError(
            f"the last dimension of hidden must be the table's embedding_dim {table.embedding_dim}, "
            f"but its shape {where} is {tuple(hidden.shape)}"
        )
    if hidden.device != table.weight.device:
        return ValueError(
            f"hidden must be on the table's device {table.weight.device}, but {where} is on {hidden.device}"
        )
    return None


def check_forbidden(forbidden: Sequence[int], num_classes: int, rank: int) -> Exception | None:
    """Return the error for ids of classes that are to be left out, or None."""
    if not isinstance(forbidden, Sequence) or not all(isinstance(number, int) for number in forbidden):
        return TypeError(f"forbidden on rank {rank} must be a list of ids, but is a {type(forbidden).__name__}")
    outside = next((number for number in forbidden if not 0 <= number < num_classes), None)
    if outside is not None:
        return IndexError(f"forbidden id {outside} on rank {rank} is outside [0, {num_classes})")
    if len(set(forbidden)) == num_classes:
        return ValueError(f"forbidden on rank {rank} holds all {num_classes} classes; at least one must be allowed")
    return None
