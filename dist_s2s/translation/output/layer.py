"""What a translator asks of its output layer."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn

from dist_s2s.sharded import DistributedEmbedding, SampledIds
from dist_s2s.translation.output.start import NEVER_CHOSEN
from dist_s2s.translation.tables.new_rows import NewRows, Optimizers

# Shapes: B sentences, T target positions, N tokens, V target vocabulary, U some of it, H readout_size, X: V or H,
# as ``layer`` says.


class Predictions(Protocol):
    """What is asked of an output layer where nothing is trained.

    ``token_losses`` takes the model's states, the others take its outputs. All may be collective.
    """

    def token_losses(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the negative log-likelihood of each token, [B, T], 0 at PAD, without gradients."""

    def best_tokens(self, outputs_NX: Tensor, k: int, forbidden: Sequence[int] = NEVER_CHOSEN) -> tuple[Tensor, Tensor]:
        """Return the k likeliest tokens of each row: log-probabilities, falling, and int64 ids, [N, k] each.

        Forbidden ones have no probability, which is that of the others.
        """

    def given_tokens(self, outputs_NX: Tensor, ids_NM: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return the log-probabilities [N, M] of given tokens, int64 [N, M], as ``best_tokens`` has them."""

    def log_probabilities(self, outputs_NX: Tensor, forbidden: Sequence[int] = NEVER_CHOSEN) -> Tensor:
        """Return the log-probabilities of all tokens, in the order of ids, [N, V] in float32 or float64.

        Forbidden ones have -inf, and their probability is that of the others.
        """


class OutputLayer(Predictions, Protocol):
    """From decoder states to losses and tokens.

    The losses take the model's states [B, T, H], ``best_tokens``, ``given_tokens`` and ``log_probabilities`` take what
    ``layer`` makes of them. These and ``rows_of`` are collective unless the layer is replicated: all ranks must call
    them.

    Attributes:
        layer: what the model applies to its states.
        tables: what checkpoints and the optimizer see, by name.
        lookup_tables: those whose rows the training loss looks up.
    """

    layer: nn.Module
    tables: dict[str, DistributedEmbedding]
    lookup_tables: list[DistributedEmbedding]

    def start_from(self, counts_V: Tensor) -> None:
        """Let an untrained layer begin with the tokens' frequencies, int64 [V]. Calls no collectives."""

    def begin_rows(self, new: NewRows, counts_V: Tensor, state: Optimizers) -> None:
        """Let the rows of new words begin anew, the bias with their frequencies, the optimizer's state of both with 0.

        Collective if there are tables. A table that is tied to the target table is reset a second time, to the same
        values.

        Args:
            new: ids of the classes.
            counts_V: how often each token has been counted, int64 [V].
            state: both optimizers.
        """

    def sample(self, target_out_BT: Tensor, step: int) -> SampledIds | None:
        """Return the ids of ``lookup_tables``' rows for a step, or None if it needs none. Calls no collectives."""

    def training_loss(
        self, states_BTH: Tensor, target_out_BT: Tensor, sample: SampledIds | None, rows: Sequence[Tensor]
    ) -> Tensor:
        """Return the loss in nats, summed over this rank's tokens.

        Args:
            states_BTH: attentional states.
            target_out_BT: int64 tokens to be predicted; PAD counts for nothing.
            sample: what ``sample`` returned for this step.
            rows: the sample's rows of ``lookup_tables``.
        """

    def exact_loss(self, states_BTH: Tensor, target_out_BT: Tensor) -> Tensor:
        """Return the negative log-likelihood, summed likewise, without label smoothing."""

    def rows_of(self, ids_U: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what turns the model's states [N, H] into logits [N, U] of these classes, int64 [U], on this rank.

        It has the weights of now: later updates are not seen. Ranks may have different numbers of ids.
        """
