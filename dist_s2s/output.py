"""The output layer of a translator, from decoder states to losses and tokens: replicated, sharded or sampled.

Each kind has

    layer           what the model applies to its states
    tables          what checkpoints and the optimizer see, by name
    lookup_tables   those whose rows the training loss looks up
    start_from      lets an untrained layer begin with the tokens' frequencies, int64 [V], for a bias
    sample          the ids of these rows for a step, known before the step; None if it needs none (local)
    training_loss   in nats, summed over this rank's tokens
    exact_loss      negative log-likelihood, summed likewise, without label smoothing
    best_tokens     log-probabilities and ids of the k likeliest tokens, [N, k] each

The losses take the model's states [B, T, H], best_tokens what ``layer`` makes of them; the three are collective unless
the layer is replicated. B sentences, T target positions, N tokens, V target vocabulary, H hidden_size, X: V or H, as
``layer`` says.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dist_s2s.linear_cross_entropy import linear_cross_entropy
from dist_s2s.seq2seq import best_of_logits
from dist_s2s.sharded import DistributedEmbedding, SampledIds, SampledSoftmaxLoss, VocabParallelCrossEntropy
from dist_s2s.text.vocabulary import PAD, SOS, UNK

OutputName = Literal["replicated", "sharded", "sampled"]
NEVER_CHOSEN = [PAD, SOS, UNK]
_MIB = 1 << 20
_REPLICATED_BYTES, _SHARDED_BYTES = 32 * _MIB, 256 * _MIB


def choose_output(num_classes: int, hidden_size: int, world_size: int, *, tied: bool = False) -> OutputName:
    """What ``model.output: auto`` means, from the memory of the layer while it is trained.

    Weights, gradients and Adam's two moments take 16 · V · (H + 1) bytes. Up to 32 MiB the layer is replicated, as on a
    single rank always: its all_reduce is then cheap beside the work, and every rank searches alone. Beyond, it is
    sharded, and exact, as long as a rank's share is at most 256 MiB. Beyond that the product with all V rows would take
    most of a step, and it is sampled. A layer that is tied to the target table is never replicated.
    """
    training_bytes = 16 * num_classes * (hidden_size + 1)
    if not tied and (world_size == 1 or training_bytes <= _REPLICATED_BYTES):
        return "replicated"
    return "sharded" if training_bytes / world_size <= _SHARDED_BYTES else "sampled"


class ReplicatedOutput:
    """A linear layer that every rank holds whole."""

    def __init__(self, hidden_size: int, num_classes: int, label_smoothing: float) -> None:
        self.layer = nn.Linear(hidden_size, num_classes)
        self.tables: dict[str, DistributedEmbedding] = {}
        self.lookup_tables: list[DistributedEmbedding] = []
        self._label_smoothing = label_smoothing

    @torch.no_grad()
    def start_from(self, counts_V: Tensor) -> None:
        """Sets the bias to the tokens' frequencies."""
        self.layer.bias.copy_(log_frequencies(counts_V))

    def sample(self, target_out_BT: Tensor, step: int) -> None:
        """The loss needs no rows."""

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Cross-entropy of the logits, a chunk of them at a time."""
        return linear_cross_entropy(self.layer, states_BTH, target_out_BT, PAD, self._label_smoothing)

    def exact_loss(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Cross-entropy of the logits, without label smoothing."""
        return linear_cross_entropy(self.layer, states_BTH, target_out_BT, PAD)

    def best_tokens(self, outputs_NX: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The largest logits."""
        return best_of_logits(outputs_NX, k, NEVER_CHOSEN)


class ShardedOutput:
    """An output table whose rows are divided among the ranks, with the exact loss."""

    def __init__(
        self, table: DistributedEmbedding, bias: DistributedEmbedding, num_classes: int, label_smoothing: float
    ) -> None:
        self.layer = nn.Identity()
        self._bias = bias
        self.tables = {"output_table": table, "output_bias": bias}
        self.lookup_tables: list[DistributedEmbedding] = []

        def cross_entropy(smoothing: float) -> VocabParallelCrossEntropy:
            return VocabParallelCrossEntropy(
                table, bias, num_classes=num_classes, ignore_index=PAD, label_smoothing=smoothing, reduction="sum"
            )

        self._smoothed, self._exact = cross_entropy(label_smoothing), cross_entropy(0.0)

    @torch.no_grad()
    def start_from(self, counts_V: Tensor) -> None:
        """Sets the rows of the bias that are classes to the tokens' frequencies (local)."""
        bias = self._bias
        ids = bias.partition.ids(bias.rank, 0, bias.partition.rows_below(bias.rank, len(counts_V)))
        bias.weight[: len(ids), 0] = log_frequencies(counts_V)[ids].to(bias.weight)

    def sample(self, target_out_BT: Tensor, step: int) -> SampledIds | None:
        """The loss needs no rows: each rank uses its own."""
        return None

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Vocabulary-parallel cross-entropy (collective)."""
        loss: Tensor = self._smoothed(states_BTH, target_out_BT)
        return loss

    def exact_loss(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Vocabulary-parallel cross-entropy, without label smoothing (collective)."""
        loss: Tensor = self._exact(states_BTH, target_out_BT)
        return loss

    def best_tokens(self, outputs_NX: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The likeliest classes of all shards (collective)."""
        return self._exact.top_k(outputs_NX, k, NEVER_CHOSEN)


class SampledOutput(ShardedOutput):
    """The same table, trained on a sample of its classes in each step; validation and search are exact."""

    def __init__(
        self,
        table: DistributedEmbedding,
        bias: DistributedEmbedding,
        num_classes: int,
        label_smoothing: float,
        num_samples: int,
        seed: int,
    ) -> None:
        super().__init__(table, bias, num_classes, label_smoothing)
        self.lookup_tables = [table, bias]
        self._sampled = SampledSoftmaxLoss(
            table,
            bias,
            num_samples=num_samples,
            num_classes=num_classes,
            ignore_index=PAD,
            label_smoothing=label_smoothing,
            reduction="sum",
            seed=seed,
        )

    def sample(self, target_out_BT: Tensor, step: int) -> SampledIds | None:
        """The targets, and candidates that all ranks share: a function of the seed and the step."""
        return self._sampled.sample(target_out_BT, step)

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Sampled softmax loss from rows that were looked up together with the model's."""
        assert sample is not None
        return self._sampled.from_rows(states_BTH, sample, *rows)


OutputLayer = ReplicatedOutput | ShardedOutput


def log_frequencies(counts_V: Tensor) -> Tensor:
    """Logarithms of the tokens' shares, as if each had occurred once more: float64 [V]."""
    smoothed = counts_V.double() + 1
    return smoothed.log() - smoothed.sum().log()
