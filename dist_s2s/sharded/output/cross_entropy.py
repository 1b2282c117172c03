"""Cross-entropy over an output layer whose rows are divided among ranks.

Every rank has tokens of its own and a shard of the classes. All ranks call forward in the same order, also without any
token; then, if gradients are wanted, backward:

    forward    1. header      all_gather: how many tokens I have, which gradients I want, and my status
               2. tokens      two all_gathers: hidden states and targets of all ranks; ignored tokens are not sent
               3. for each chunk of tokens:
                  logits of the local classes; all_gather of their largest, sum of exp, that of the target, and sum;
                  with the probabilities that follow, this shard's part of all gradients
               4. gradients   all_to_all and a sum, so a reduce_scatter: hidden states' gradients, to their ranks
    backward   5. scale       all_gather of the loss's own gradient, by which all others are multiplied

No rank ever holds more logits than those of its classes for one chunk. That ranks exchange sums in place of logits is
the idea of Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053, section 3), which takes three collectives for it; here
each rank's largest logit travels along with the sum of exp that is relative to it, so that one is enough. Logits in
chunks, with the gradients in the same pass: Liger Kernel (Hsu et al. 2024, arXiv:2410.10989).
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dist_s2s.sharded.output.classes import check_hidden, matmul_dtype
from dist_s2s.sharded.output.cross_entropy_function import CrossEntropyFunction, Problem, Wants
from dist_s2s.sharded.output.tokens import agree, tokens_of_replicas
from dist_s2s.sharded.output.top_k import top_k
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.transport.protocol import Subject

Reduction = Literal["mean", "sum"]


class VocabParallelCrossEntropy(nn.Module):
    """The output layer and its cross-entropy: F.cross_entropy(hidden @ table.T + bias, target), logits never whole.

    table: rows are the classes' weights, [V, H]. It may be in use for lookups too (tied tables): its gradient then is
        the sum of both uses. This use makes it dense.
    bias: a table of one column, [V, 1], with the same ranks and layout; None: no bias.
    num_classes: ids from there on are no classes; by default all V rows are, also after ``table.grow``.
    ignore_index: target of tokens that count for nothing.
    label_smoothing: as in torch.nn.CrossEntropyLoss.
    reduction: "sum" returns the sum over this rank's tokens. "mean" returns it times the number of ranks, divided by
        the number of tokens on all ranks; so the mean over ranks, which is what DistributedDataParallel computes, is
        that over all tokens; all replicas' ranks and tokens count.
    chunk_elements: how many logits a rank computes at a time.

    The table's gradient is the sum over all ranks (replicas too) of the gradients of their losses, divided by
    ``table.grad_divisor``: with grad_reduction "mean" like DistributedDataParallel's. Building this is collective.
    Raises ValueError on every rank for settings that are impossible or differ between ranks.
    """

    def __init__(
        self,
        table: DistributedEmbedding,
        bias: DistributedEmbedding | None = None,
        *,
        num_classes: int | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        chunk_elements: int = 1 << 22,
    ) -> None:
        super().__init__()
        settings = {
            "num_classes": num_classes,
            "ignore_index": ignore_index,
            "label_smoothing": label_smoothing,
            "reduction": reduction,
            "chunk_elements": chunk_elements,
            "the bias": None if bias is None else (bias.partition, bias.embedding_dim),
        }
        table.group.check_same(settings, Subject("the building of an output layer"))
        if num_classes is not None and not 1 <= num_classes <= table.num_embeddings:
            raise ValueError(f"num_classes must be within [1, {table.num_embeddings}], but is {num_classes}")
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be within [0, 1], but is {label_smoothing}")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be mean or sum, but is {reduction!r}")
        if chunk_elements < 1:
            raise ValueError(f"chunk_elements must be at least 1, but is {chunk_elements}")
        if bias is not None and (bias.partition != table.partition or bias.embedding_dim != 1):
            raise ValueError(
                f"the bias must have one column and the table's partition {table.partition}, "
                f"but has {bias.embedding_dim} and {bias.partition}"
            )
        self.table, self.bias = table, bias
        self.ignore_index, self.label_smoothing, self.reduction = ignore_index, label_smoothing, reduction
        self.chunk_elements = chunk_elements
        self._num_classes = num_classes

    @property
    def num_classes(self) -> int:
        """How many of the table's rows are classes."""
        return self.table.num_embeddings if self._num_classes is None else self._num_classes

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """This rank's loss, a scalar (collective, and so is its backward; see the top of this file).

        hidden: [..., H], float32, float64, bfloat16 or float16; target: int64 [...], classes or ignore_index. Ranks may
        have different numbers of tokens, or none. The loss is float32, or float64 for float64 hidden. Matrix products
        are in hidden's dtype, or in torch.autocast's; all sums over classes, ranks and chunks in that of the loss. The
        mean over no token at all is nan, as in torch, and its gradients are 0.

        Raises on every rank the error of the first rank that has one: TypeError or ValueError for a wrong dtype, shape
        or device, IndexError for a target out of range; ValueError if dtypes, or whether gradients are enabled, differ.
        Backward can run once, since forward has computed the gradients. It raises ValueError on every rank if the
        loss's own gradient differs between ranks: scale losses equally.
        """
        table, bias = self.table, self.bias
        error = check_hidden(hidden, table) or self._check_target(hidden, target)
        kept, kept_targets = table.weight.new_empty(0, table.embedding_dim), torch.empty(0, dtype=torch.int64)
        if error is None:
            counted = target != self.ignore_index
            kept, kept_targets = hidden[counted].to(matmul_dtype(hidden)), target[counted]
        parameters = [kept, table.weight] + ([] if bias is None else [bias.weight])
        wanted = [torch.is_grad_enabled() and parameter.requires_grad for parameter in parameters]
        settings = {"the dtype of matrix products": kept.dtype, "torch.is_grad_enabled()": torch.is_grad_enabled()}
        counts, *wanted_by_rank = zip(
            *agree(table, "a cross-entropy", error, settings, [len(kept), *wanted]), strict=True
        )
        wants = Wants(*(any(ranks) for ranks in wanted_by_rank))
        if wants.anything and not kept.requires_grad:
            kept = kept.detach().requires_grad_()  # so that backward, a collective, will run on this rank too
        problem = Problem(
            table,
            bias,
            self.num_classes,
            self.label_smoothing,
            self._scale(sum(counts)),
            self.chunk_elements,
            counts,
            wants,
        )
        bias_weight = None if bias is None else bias.weight
        loss: Tensor = CrossEntropyFunction.apply(kept, table.weight, bias_weight, kept_targets, problem)  # type: ignore[no-untyped-call]
        return loss

    def top_k(self, hidden: Tensor, k: int, forbidden: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Log-probabilities [..., k] and ids [..., k] of the likeliest classes of hidden [..., H] (collective).

        See top_k.py, whose function this calls.
        """
        return top_k(
            self.table,
            self.bias,
            hidden,
            k,
            forbidden,
            num_classes=self.num_classes,
            chunk_elements=self.chunk_elements,
        )

    def _scale(self, num_tokens: int) -> float:
        """Factor of a rank's losses (one all_gather among replicas). num_tokens: of the ranks that share the table."""
        table = self.table
        if self.reduction == "sum":
            return 1.0
        num_tokens = tokens_of_replicas(num_tokens, table)
        return table.world_size * table.group.replicas.size / num_tokens if num_tokens else math.nan

    def _check_target(self, hidden: Tensor, target: object) -> Exception | None:
        where = f"on rank {self.table.rank}"
        if not isinstance(target, Tensor) or target.dtype != torch.int64:
            what = f"its dtype is {target.dtype}" if isinstance(target, Tensor) else f"is a {type(target).__name__}"
            return TypeError(f"target {where} must be a tensor of int64, but {what}")
        if target.shape != hidden.shape[:-1] or target.device != hidden.device:
            return ValueError(
                f"target must have the shape and device of hidden without its last dimension, but {where} they are "
                f"{tuple(target.shape)} on {target.device} and {tuple(hidden.shape)} on {hidden.device}"
            )
        wrong = ((target < 0) | (target >= self.num_classes)) & (target != self.ignore_index)
        if not bool(wrong.any()):
            return None
        position = tuple(wrong.nonzero()[0].tolist())
        return IndexError(
            f"target {int(target[position])} at position {position} {where} is outside [0, {self.num_classes})"
        )
