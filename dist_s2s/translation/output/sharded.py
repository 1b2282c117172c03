"""An output layer whose rows are divided among the ranks, trained with the exact loss."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dist_s2s.models.output import apply_output, linear_of
from dist_s2s.sharded import DistributedEmbedding, SampledIds, VocabParallelCrossEntropy, lookup
from dist_s2s.sharded.output.given_classes import given_classes
from dist_s2s.text.vocabulary import PAD
from dist_s2s.translation.output.start import NEVER_CHOSEN, log_frequencies
from dist_s2s.translation.tables.new_rows import NewRows, Optimizers, begin_rows


class ShardedOutput:
    """An output table whose rows are divided among the ranks, with the exact loss."""

    def __init__(
        self, table: DistributedEmbedding, bias: DistributedEmbedding, num_classes: int, label_smoothing: float
    ) -> None:
        self.layer: nn.Module = nn.Identity()
        self._table, self._bias = table, bias
        self.tables = {"output_table": table, "output_bias": bias}
        self.lookup_tables: list[DistributedEmbedding] = []

        def cross_entropy(smoothing: float) -> VocabParallelCrossEntropy:
            return VocabParallelCrossEntropy(
                table, bias, num_classes=num_classes, ignore_index=PAD, label_smoothing=smoothing, reduction="sum"
            )

        self._smoothed, self._exact = cross_entropy(label_smoothing), cross_entropy(0.0)

    @torch.no_grad()
    def start_from(self, counts_V: Tensor) -> None:
        """Set the rows of the bias that are classes to the tokens' frequencies (local)."""
        bias = self._bias
        ids = bias.partition.ids(bias.rank, 0, bias.partition.rows_below(bias.rank, len(counts_V)))
        bias.weight[: len(ids), 0] = log_frequencies(counts_V)[ids].to(bias.weight)

    @torch.no_grad()
    def begin_rows(self, new: NewRows, counts_V: Tensor, state: Optimizers) -> None:
        """Let rows of table and bias begin anew on their owners (collective)."""
        begin_rows(self._table, new, state.table_optimizer)
        bias = self._bias
        bias.reset_rows(new.ids[bias.rank :: bias.world_size].to(bias.weight.device), state.table_optimizer)
        places = bias.partition.positions(new.ids) - bias.partition.offset(bias.rank)
        is_mine = (places >= 0) & (places < len(bias.weight))
        values = log_frequencies(counts_V)[new.ids[is_mine]]
        bias.weight[places[is_mine].to(bias.weight.device), 0] = values.to(bias.weight)

    def sample(self, target_out_BT: Tensor, step: int) -> SampledIds | None:
        """Return None: each rank uses its own rows."""
        return None

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Return the vocabulary-parallel cross-entropy (collective)."""
        loss: Tensor = self._smoothed(states_BTH, target_out_BT)
        return loss

    def exact_loss(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the vocabulary-parallel cross-entropy, without label smoothing (collective)."""
        loss: Tensor = self._exact(states_BTH, target_out_BT)
        return loss

    def token_losses(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the vocabulary-parallel cross-entropy of each token (collective)."""
        return self._exact.token_losses(states_BTH, target_out_BT)

    @torch.no_grad()
    def rows_of(self, ids_U: Tensor) -> Callable[[Tensor], Tensor]:
        """Look the rows up, so that what comes of them is local (collective)."""
        weight_UH, bias_U1 = lookup([self._table, self._bias], [ids_U, ids_U])
        return partial(apply_output, linear_of(weight_UH, bias_U1[:, 0]))

    def given_tokens(self, outputs_NX: Tensor, ids_NM: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return what all shards together give these classes (collective)."""
        sizes = {"num_classes": self._exact.num_classes, "chunk_elements": self._exact.chunk_elements}
        return given_classes(self._table, self._bias, outputs_NX, ids_NM, forbidden, **sizes)

    def best_tokens(self, outputs_NX: Tensor, k: int, forbidden: Sequence[int] = NEVER_CHOSEN) -> tuple[Tensor, Tensor]:
        """Return the likeliest classes of all shards (collective)."""
        return self._exact.top_k(outputs_NX, k, forbidden)

    def log_probabilities(self, outputs_NX: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return those of the logits of all shards (collective)."""
        return self._exact.log_probabilities(outputs_NX, forbidden)
