"""An output layer that every rank holds whole."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dist_s2s.models import best_of_logits, given_of_logits
from dist_s2s.models.int8 import Int8Linear
from dist_s2s.models.output import apply_output, linear_of, log_probabilities
from dist_s2s.sharded import DistributedEmbedding, SampledIds
from dist_s2s.sharded.tables.initialize import normal_rows
from dist_s2s.text.vocabulary import PAD
from dist_s2s.translation.output.linear_cross_entropy import linear_cross_entropy, linear_token_losses
from dist_s2s.translation.output.start import NEVER_CHOSEN, log_frequencies
from dist_s2s.translation.tables.new_rows import NewRows, Optimizers, begin_replicated

_SEED = 1  # of rows of new words; each depends on its id too


class ReplicatedOutput:
    """A linear layer that every rank holds whole; it is trained unless another takes its place as ``layer``."""

    def __init__(self, readout_size: int, num_classes: int, label_smoothing: float) -> None:
        self._linear = nn.Linear(readout_size, num_classes)
        self.layer: nn.Module = self._linear
        self.tables: dict[str, DistributedEmbedding] = {}
        self.lookup_tables: list[DistributedEmbedding] = []
        self._label_smoothing = label_smoothing

    @torch.no_grad()
    def start_from(self, counts_V: Tensor) -> None:
        """Set the bias to the tokens' frequencies."""
        self._linear.bias.copy_(log_frequencies(counts_V))

    @torch.no_grad()
    def begin_rows(self, new: NewRows, counts_V: Tensor, state: Optimizers) -> None:
        """Let rows of weight and bias begin anew, the same on every rank (local).

        The initial row of an id is that of a sharded table with another seed and nn.Linear's standard deviation.
        """
        weight, bias = self._linear.weight, self._linear.bias
        initial = normal_rows(new.ids, weight.shape[1], _SEED).mul_((3 * weight.shape[1]) ** -0.5)
        begin_replicated(weight, new, initial, state.core_optimizer)
        begin_replicated(bias, new, log_frequencies(counts_V)[new.ids], state.core_optimizer)

    def sample(self, target_out_BT: Tensor, step: int) -> None:
        """Return None: the loss needs no rows."""

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Return the cross-entropy of the logits, a chunk of them at a time."""
        return linear_cross_entropy(self._linear, states_BTH, target_out_BT, PAD, self._label_smoothing)

    def exact_loss(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the cross-entropy of the logits, without label smoothing."""
        return linear_cross_entropy(self._linear, states_BTH, target_out_BT, PAD)

    def token_losses(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the cross-entropy of each token."""
        return linear_token_losses(self.layer, self._linear.out_features, states_BTH, target_out_BT, PAD)

    def rows_of(self, ids_U: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a layer of some of the rows."""
        layer = self.layer
        if isinstance(layer, Int8Linear):
            return layer.select(ids_U)
        assert isinstance(layer, nn.Linear)
        return partial(apply_output, linear_of(layer.weight.detach()[ids_U], layer.bias.detach()[ids_U]))

    def given_tokens(self, outputs_NX: Tensor, ids_NM: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return what the logits give these tokens."""
        return given_of_logits(outputs_NX, ids_NM, forbidden)

    def best_tokens(self, outputs_NX: Tensor, k: int, forbidden: Sequence[int] = NEVER_CHOSEN) -> tuple[Tensor, Tensor]:
        """Return the largest logits."""
        return best_of_logits(outputs_NX, k, forbidden)

    def log_probabilities(self, outputs_NX: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return those of the logits."""
        return log_probabilities(outputs_NX, forbidden)
