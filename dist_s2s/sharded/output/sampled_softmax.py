"""Cross-entropy over a sample of the classes, for output tables too large to compute every logit."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dist_s2s.sharded.eager import never_compiled
from dist_s2s.sharded.exchange.ids import check_ids
from dist_s2s.sharded.output.candidates import cumulative_shares, draw_candidates, frequencies_error
from dist_s2s.sharded.output.classes import check_hidden, matmul_dtype, sum_dtype
from dist_s2s.sharded.output.tokens import agree, tokens_of_replicas
from dist_s2s.sharded.tables.embedding import DistributedEmbedding
from dist_s2s.sharded.tables.lookup import lookup

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class SampledIds:
    """The rows of the output table that one step needs: those of this rank's N targets and of S candidates.

    Attributes:
        ids: what to look up in table and bias, int64 [N + S]: the targets that are not ignored, then the candidates.
        num_targets: N.
        keep: True where the target is not ignored, bool in the target's shape.
        log_inclusion: for each candidate the logarithm of the probability that it is one, float64 [S].
    """

    ids: Tensor
    num_targets: int
    keep: Tensor
    log_inclusion: Tensor


class SampledSoftmaxLoss(nn.Module):
    """Estimate F.cross_entropy(hidden @ table.T + bias, target) from the logits of the targets and a sample of classes.

    Each step draws ``num_samples`` ids with replacement from a distribution q, the same ids on every rank, and keeps
    the distinct ones, S. Id j is among them with probability p_j = 1 - (1 - q_j)^num_samples, so

        Z = exp(s_y) + sum over j in S, j != y, of exp(s_j) / p_j

    is an unbiased estimate of the softmax's denominator for the target y (Horvitz and Thompson 1952, "A generalization
    of sampling without replacement from a finite universe"). The loss is log Z - s_y. The logits of candidates are thus
    corrected by -log p_j and that of the target is not; a candidate that happens to be the target does not count twice.
    The gradient is biased, the less so the more samples are drawn, and exact once every p_j is 1. See Bengio and
    Senécal 2003, "Quick training of probabilistic neural nets by importance sampling"; Jean et al. 2015, "On using very
    large target vocabulary for neural machine translation", arXiv:1412.2007.

    With label smoothing e the loss is log Z - (1 - e) s_y - e m, where m estimates the mean of all logits from the same
    logits with the same weights 1 / p_j. Time, memory and the table's gradient depend on the number of targets and
    candidates, never on the size of the table; with ``frequencies`` each rank also keeps 8 bytes per class. Building
    the layer is collective.

    Args:
        table: the output table, [num_embeddings, H].
        bias: a table [num_embeddings, 1] of the same process group, or None.
        num_samples: number of draws in each step.
        num_classes: ids from here on only pad the table and are never classes. By default all rows are classes; without
            ``frequencies`` also those that ``table.grow`` adds.
        frequencies: counts of the classes, [num_classes]; candidates are drawn in proportion to them. A class with a
            count of 0 is never a candidate, so it learns only as a target: add 1 to all counts to avoid that. By
            default q(i) = log((i + 2) / (i + 1)) / log(num_classes + 1), which suits ids in order of falling frequency.
        ignore_index: target of tokens that do not count.
        label_smoothing: e, within [0, 1].
        reduction: "sum" returns the sum of this rank's losses. "mean" divides it by the mean number of targets per
            rank, so that the mean over ranks, which DistributedDataParallel and tables with grad_reduction="mean" take
            of the gradients, is the mean over all targets. Over no targets it is nan, as in torch, with gradients of 0.
        seed: decides the candidates, together with the number of the step.

    Raises:
        ValueError: on every rank, for settings that are impossible or differ between ranks.
    """

    def __init__(
        self,
        table: DistributedEmbedding,
        bias: DistributedEmbedding | None = None,
        *,
        num_samples: int,
        num_classes: int | None = None,
        frequencies: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.table, self.bias = table, bias
        self.num_samples = num_samples
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.seed = seed
        self.next_step = 0
        self._num_classes = table.num_embeddings if num_classes is None and frequencies is not None else num_classes
        agree(
            table, "the building of an output layer", self._settings_error(frequencies), self._settings(frequencies), []
        )
        # On the CPU, where candidates are drawn, and not a buffer, which module.to(dtype) would round.
        self._cumulative = None if frequencies is None else cumulative_shares(frequencies)

    @property
    def num_classes(self) -> int:
        """The number of the table's rows that are classes."""
        return self.table.num_embeddings if self._num_classes is None else self._num_classes

    def sample(self, target: Tensor, step: int | None = None) -> SampledIds:
        """Return the targets that count and the candidates of a step (local, so it may be called ahead of the step).

        Args:
            target: classes, integers of any shape. For one outside [0, num_classes) this raises nothing, but returns an
                id outside the table, so that looking the ids up raises on every rank.
            step: number of the step, which decides the candidates; give the same on every rank. By default 0, 1, … in
                the order of the calls; a run that is to be resumed must give it.
        """
        if step is None:
            step, self.next_step = self.next_step, self.next_step + 1
        candidates, log_inclusion = draw_candidates(
            self.num_samples, self.num_classes, self._cumulative, self.seed, step
        )
        keep = target.long() != self.ignore_index
        targets = target[keep]
        ids = torch.cat((targets, candidates.to(target.device)))
        ids = torch.where(ids < self.num_classes, ids, ids + self.table.num_embeddings - self.num_classes)
        return SampledIds(ids, len(targets), keep, log_inclusion.to(target.device))

    @never_compiled
    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return this rank's loss, a scalar (collective, also without targets, and so is its backward).

        The ranks agree on the number of targets in one exchange (with replicas in three), then look up table and bias.

        Args:
            hidden: [*target.shape, H] in bfloat16, float16, float32 or float64.
            target: classes or ignore_index, integers of any shape.

        Raises:
            IndexError: on every rank, for a target that is neither ignore_index nor within [0, num_classes).
            TypeError: on every rank, for a wrong dtype.
            ValueError: on every rank, for hidden states of a wrong shape or device.
        """
        error = self._target_error(target) or self._hidden_error(hidden, target)
        total = self._total(0 if error else int((target.long() != self.ignore_index).sum()), error)
        sample = self.sample(target)
        tables = [self.table] if self.bias is None else [self.table, self.bias]
        rows, *bias_rows = lookup(tables, [sample.ids] * len(tables))
        losses = self._losses(hidden, sample, rows, *bias_rows)
        return self._reduce(losses, total)

    @never_compiled
    def from_rows(self, hidden: Tensor, sample: SampledIds, rows: Tensor, bias_rows: Tensor | None = None) -> Tensor:
        """Return this rank's loss from rows that were looked up before, perhaps together with those of other tables.

        Collective for reduction="mean": one exchange, with replicas three. Local for "sum".

        Args:
            hidden: [*sample.keep.shape, H].
            sample: result of ``sample``.
            rows: those of sample.ids in the table, [N + S, H].
            bias_rows: those of sample.ids in the bias, [N + S, 1]; None without a bias.

        Raises:
            TypeError, ValueError: for a wrong dtype or shape; on every rank for "mean", on this one alone for "sum".
        """
        error = self._hidden_error(hidden, sample.keep) or self._rows_error(sample, rows, bias_rows)
        if self.reduction == "mean":
            total = self._total(sample.num_targets, error)
        elif error is not None:
            raise error
        else:
            total = sample.num_targets
        return self._reduce(self._losses(hidden, sample, rows, bias_rows), total)

    def extra_repr(self) -> str:
        """Return what print(module) shows between the parentheses."""
        kind = "log-uniform" if self._cumulative is None else "frequency-based"
        return f"{self.num_samples} {kind} samples of {self.num_classes} classes, reduction={self.reduction}"

    def _losses(self, hidden: Tensor, sample: SampledIds, rows: Tensor, bias_rows: Tensor | None = None) -> Tensor:
        """Return the loss of each target, [N], in float32 or float64; the matrix product may be in a narrower dtype."""
        hidden_NH, num_targets = hidden[sample.keep], sample.num_targets
        dtype, narrow = sum_dtype(hidden.dtype), matmul_dtype(hidden)
        target_rows_NH, candidate_rows_SH = rows[:num_targets], rows[num_targets:]
        true_N = (hidden_NH.to(dtype) * target_rows_NH.to(dtype)).sum(1)
        logits_NS = F.linear(hidden_NH.to(narrow), candidate_rows_SH.to(narrow)).to(dtype)
        if bias_rows is not None:
            bias = bias_rows.to(dtype).squeeze(1)
            true_N, logits_NS = true_N + bias[:num_targets], logits_NS + bias[num_targets:]
        hits_NS = sample.ids[:num_targets, None] == sample.ids[num_targets:]
        log_inclusion_S = sample.log_inclusion.to(dtype)
        corrected_NS = (logits_NS - log_inclusion_S).masked_fill(hits_NS, -math.inf)
        log_partition_N = torch.cat((true_N[:, None], corrected_NS), dim=1).logsumexp(1)
        if self.label_smoothing == 0:
            return log_partition_N - true_N
        others_N = logits_NS.masked_fill(hits_NS, 0).mul(log_inclusion_S.neg().exp()).sum(1)
        mean_logit_N = (true_N + others_N) / self.num_classes
        return log_partition_N - true_N.lerp(mean_logit_N, self.label_smoothing)

    def _reduce(self, losses: Tensor, total: int) -> Tensor:
        if self.reduction == "sum":
            return losses.sum()
        num_ranks = self.table.world_size * self.table.group.replicas.size
        # Without losses the gradients are 0 all the same.
        return losses.sum() * (num_ranks / total if total else math.nan)

    def _total(self, num_targets: int, error: Exception | None) -> int:
        """Return the number of targets of all ranks; raise the first rank's error on all of them (collective)."""
        total = sum(of_rank[0] for of_rank in agree(self.table, "a sampled softmax", error, {}, [num_targets]))
        return tokens_of_replicas(total, self.table)

    def _target_error(self, target: object) -> Exception | None:
        if isinstance(target, Tensor):
            target = target.masked_fill(target.long() == self.ignore_index, 0)
        return check_ids(target, self.num_classes, self.table.rank)

    def _hidden_error(self, hidden: Tensor, target: Tensor) -> Exception | None:
        error = check_hidden(hidden, self.table)
        return error or self._wrong_shape("hidden", hidden, (*target.shape, self.table.embedding_dim))

    def _rows_error(self, sample: SampledIds, rows: Tensor, bias_rows: Tensor | None) -> Exception | None:
        if (bias_rows is None) != (self.bias is None):
            given, has = ("without", "has a") if bias_rows is None else ("with", "has no")
            return ValueError(f"rows on rank {self.table.rank} came {given} bias_rows, but the loss {has} bias")
        error = self._wrong_shape("rows", rows, (len(sample.ids), self.table.embedding_dim))
        return error if bias_rows is None else error or self._wrong_shape("bias_rows", bias_rows, (len(sample.ids), 1))

    def _wrong_shape(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Exception | None:
        if tuple(tensor.shape) == shape:
            return None
        return ValueError(f"{name} on rank {self.table.rank} must have shape {shape}, but has {tuple(tensor.shape)}")

    def _settings(self, frequencies: Tensor | None) -> dict[str, object]:
        """Return what must be the same on every rank."""
        names = ("num_samples", "num_classes", "ignore_index", "label_smoothing", "reduction", "seed")
        cumulated = None if frequencies is None else float(frequencies.double().cumsum(0).sum())
        return {
            "the presence of a bias": self.bias is not None,
            **{name: getattr(self, name) for name in names},
            "the sum of the cumulated frequencies": cumulated,
        }

    def _settings_error(self, frequencies: Tensor | None) -> ValueError | None:
        num_rows, bias = self.table.num_embeddings, self.bias
        if self.num_samples < 1:
            return ValueError(f"num_samples must be at least 1, but is {self.num_samples}")
        if not 1 <= self.num_classes <= num_rows:
            return ValueError(
                f"num_classes must be within [1, {num_rows}], the table's rows, but is {self.num_classes}"
            )
        if not 0 <= self.label_smoothing <= 1:
            return ValueError(f"label_smoothing must be within [0, 1], but is {self.label_smoothing}")
        if self.reduction not in get_args(Reduction):
            return ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, but is {self.reduction!r}")
        if bias is not None and (bias.num_embeddings, bias.embedding_dim) != (num_rows, 1):
            size = f"{bias.num_embeddings} × {bias.embedding_dim}"
            return ValueError(f"bias must be a table of {num_rows} × 1, but is one of {size}")
        return None if frequencies is None else frequencies_error(frequencies, self.num_classes)
