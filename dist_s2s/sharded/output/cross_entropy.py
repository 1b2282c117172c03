"""Cross-entropy over an output layer whose rows are divided among ranks.

Every rank has its own tokens and a shard of the classes. All ranks call forward in the same order, also without tokens;
then, if gradients are wanted, backward. Each line is one exchange, unless it says how many:

    forward    1. agree       how many tokens I have, which gradients I want, and my status
               2. tokens      two exchanges: hidden states and targets of all ranks; ignored tokens are not sent
               3. chunks      for each chunk of tokens: compute the logits of the local classes; exchange their maximum,
                              their sum of exp, the target's logit and their mean; from the probabilities that follow
                              compute this shard's part of all gradients
               4. gradients   those of the hidden states go to the tokens' ranks, where they are summed
    backward   5. scale       the gradient of the loss itself, by which all others are multiplied

No rank holds more logits at a time than those of its classes for one chunk. To exchange sums instead of logits is the
idea of Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053, section 3), which takes three collectives for it; here each
rank's maximum travels together with the sum of exp relative to it, so one is enough. Computing logits in chunks, with
the gradients in the same pass, is that of Liger Kernel (Hsu et al. 2024, arXiv:2410.10989).
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dist_s2s.sharded.eager import never_compiled
from dist_s2s.sharded.output.classes import check_hidden, matmul_dtype
from dist_s2s.sharded.output.cross_entropy_function import CrossEntropyFunction, Problem, Wants, losses_and_gradients
from dist_s2s.sharded.output.log_probabilities import log_probabilities
from dist_s2s.sharded.output.tokens import agree, tokens_of_replicas
from dist_s2s.sharded.output.top_k import top_k
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.transport.protocol import Subject

Reduction = Literal["mean", "sum"]


class VocabParallelCrossEntropy(nn.Module):
    """Compute F.cross_entropy(hidden @ table.T + bias, target) without ever holding all logits.

    The table's gradient is dense: the sum over all ranks, replicas included, of the gradients of their losses, divided
    by ``table.grad_divisor``. With grad_reduction "mean" this is what DistributedDataParallel computes. Building the
    layer is collective.

    Args:
        table: its rows are the weights of the classes, [V, H]. It may be used for lookups too (tied tables); its
            gradient is then the sum of both uses.
        bias: a table of one column, [V, 1], with the same ranks and layout, or None.
        num_classes: ids from here on are not classes. By default all V rows are, also after ``table.grow``.
        ignore_index: target of tokens that do not count.
        label_smoothing: as in torch.nn.CrossEntropyLoss.
        reduction: "sum" returns the sum over this rank's tokens. "mean" returns that sum times the number of ranks,
            divided by the number of tokens on all ranks, so that the mean over ranks, which DistributedDataParallel
            takes, is the mean over all tokens. Ranks and tokens of all replicas count.
        chunk_elements: number of logits that a rank computes at a time. By default 2^22, which suits the caches of a
            CPU, or 2^26 on a GPU: measured on an H200 with V = 128,000 at a quarter of the time of 2^22, and an eighth
            in bfloat16.

    Raises:
        ValueError: on every rank, for settings that are impossible or differ between ranks.
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
        chunk_elements: int | None = None,
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
        table.group.check_same_everywhere(settings, Subject("the building of an output layer"))
        if num_classes is not None and not 1 <= num_classes <= table.num_embeddings:
            raise ValueError(f"num_classes must be within [1, {table.num_embeddings}], but is {num_classes}")
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be within [0, 1], but is {label_smoothing}")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be mean or sum, but is {reduction!r}")
        if chunk_elements is not None and chunk_elements < 1:
            raise ValueError(f"chunk_elements must be at least 1, but is {chunk_elements}")
        if bias is not None and (bias.partition != table.partition or bias.embedding_dim != 1):
            raise ValueError(
                f"the bias must have one column and the table's partition {table.partition}, "
                f"but has {bias.embedding_dim} and {bias.partition}"
            )
        if bias is not None and bias.group is not table.group:
            raise ValueError(
                "the bias must be shared by the table's ranks in the same way: build it with the same process_group or "
                "device_mesh, and transport"
            )
        self.table, self.bias = table, bias
        self.ignore_index, self.label_smoothing, self.reduction = ignore_index, label_smoothing, reduction
        self.chunk_elements = chunk_elements or (1 << 22 if table.group.device.type == "cpu" else 1 << 26)
        self._num_classes = num_classes

    @property
    def num_classes(self) -> int:
        """The number of the table's rows that are classes."""
        return self.table.num_embeddings if self._num_classes is None else self._num_classes

    @never_compiled
    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return this rank's loss, a scalar (collective, and so is its backward; see the top of this file).

        Matrix products are in the dtype of ``hidden``, or in autocast's; sums over classes, ranks and chunks are in the
        dtype of the loss. Forward computes the gradients too, so backward can run only once. It raises ValueError on
        every rank if the gradient of the loss itself differs between ranks: scale the loss equally on all of them.

        Args:
            hidden: [..., H] in float32, float64, bfloat16 or float16. Ranks may have different numbers of tokens, or
                none.
            target: int64 [...], classes or ignore_index.

        Returns:
            The loss in float32, or in float64 if ``hidden`` is. Its mean over no tokens is nan, as in torch, with
            gradients of 0.

        Raises:
            IndexError: on every rank, for a target that is out of range.
            TypeError: on every rank, for a tensor of a wrong dtype.
            ValueError: on every rank, for a wrong shape or device, or if dtypes, or whether gradients are enabled,
                differ between ranks.
        """
        kept, targets, problem = self._agree(hidden, target)
        if problem.wants.anything and not kept.requires_grad:
            kept = kept.detach().requires_grad_()  # so that backward, a collective, will run on this rank too
        bias_weight = None if self.bias is None else self.bias.weight
        loss: Tensor = CrossEntropyFunction.apply(kept, self.table.weight, bias_weight, targets, problem)  # type: ignore[no-untyped-call]
        return loss

    @never_compiled
    @torch.no_grad()
    def token_losses(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each token, [...], 0 where it is ignored, without gradients (collective).

        Arguments, dtype and errors are those of ``forward``; ``reduction`` counts for nothing.
        """
        kept, targets, problem = self._agree(hidden, target)
        found, _ = losses_and_gradients(kept, targets, problem)
        losses = found.new_zeros(target.shape)
        losses[target != self.ignore_index] = found
        return losses

    @never_compiled
    def top_k(self, hidden: Tensor, k: int, forbidden: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and ids, both [..., k], of the most likely classes (collective).

        See ``dist_s2s.sharded.output.top_k.top_k``, which this calls, for details and errors.

        Args:
            hidden: [..., H]; ranks may have different numbers of tokens, or none.
            k: number of classes for each token, the same on every rank.
            forbidden: ids of classes whose logits count as -inf, the same on every rank.
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

    @never_compiled
    def log_probabilities(self, hidden: Tensor, forbidden: Sequence[int] = ()) -> Tensor:
        """Return the log-probability of each class after each token, [..., num_classes] (collective).

        See ``dist_s2s.sharded.output.log_probabilities.log_probabilities``, which this calls, for details and errors.

        Args:
            hidden: [..., H]; ranks may have different numbers of tokens, or none.
            forbidden: ids of classes whose logits count as -inf, the same on every rank.
        """
        sizes = {"num_classes": self.num_classes, "chunk_elements": self.chunk_elements}
        return log_probabilities(self.table, self.bias, hidden, forbidden, **sizes)

    def _agree(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Problem]:
        """Return the tokens that count, hidden [n, H] and targets [n], and what all ranks agree on (collective)."""
        table, bias = self.table, self.bias
        error = check_hidden(hidden, table) or self._check_target(hidden, target)
        kept, targets = table.weight.new_empty(0, table.embedding_dim), torch.empty(0, dtype=torch.int64)
        if error is None:
            counted = target != self.ignore_index
            kept, targets = hidden[counted].to(matmul_dtype(hidden)), target[counted]
        parameters = [kept, table.weight] + ([] if bias is None else [bias.weight])
        wanted = [torch.is_grad_enabled() and parameter.requires_grad for parameter in parameters]
        settings = {"the dtype of matrix products": kept.dtype, "torch.is_grad_enabled()": torch.is_grad_enabled()}
        counts, *wanted_by_rank = zip(
            *agree(table, "a cross-entropy", error, settings, [len(kept), *wanted]), strict=True
        )
        wants = Wants(*(any(ranks) for ranks in wanted_by_rank))
        scale = self._scale(sum(counts))
        problem = Problem(
            table, bias, self.num_classes, self.label_smoothing, scale, self.chunk_elements, counts, wants
        )
        return kept, targets, problem

    def _scale(self, num_tokens: int) -> float:
        """Return the factor of a rank's losses, given the tokens of the ranks that share the table.

        Collective among replicas.
        """
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
