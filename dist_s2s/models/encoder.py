"""Bidirectional LSTM encoder."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_s2s.models.dropout import Dropout, DropoutRates, EmbeddingDropout

# Shapes: B sentences, S source positions, E embedding_dim, H hidden_size.


class Encoding(NamedTuple):
    """What the decoder sees of a source sentence."""

    memory_BSH: Tensor
    mask_BS: Tensor  # bool, True at real tokens
    summary_BH: Tensor  # last states of both directions of the top layer

    def select(self, rows_N: Tensor) -> "Encoding":
        """Return the encoding of the sentences ``rows_N``, int64 [N], in that order."""
        return Encoding(self.memory_BSH[rows_N], self.mask_BS[rows_N], self.summary_BH[rows_N])


class Encoder(nn.Module):
    """num_layers bidirectional LSTM layers of hidden_size / 2 a direction, with residuals from the second layer on.

    The backward direction reads each sentence reversed within its own length, so a result never depends on how much
    padding its batch has; that needs no packed sequences, which cost three times as much in bf16 on a CPU.
    """

    def __init__(self, embedding_dim: int, hidden_size: int, num_layers: int, dropout: DropoutRates) -> None:
        super().__init__()
        if hidden_size % 2:
            raise ValueError(f"hidden_size must be even for two directions, but is {hidden_size}")
        sizes = [embedding_dim] + [hidden_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(nn.LSTM(size, hidden_size // 2, batch_first=True) for size in sizes)
        self.backward_layers = nn.ModuleList(nn.LSTM(size, hidden_size // 2, batch_first=True) for size in sizes)
        self.embedding_dropout = EmbeddingDropout(dropout)
        self.dropout = Dropout(dropout.hidden, dropout.variational)

    def forward(self, embedded_BSE: Tensor, lengths_B: Tensor) -> Encoding:
        """Encode rows of the source table; lengths_B: int64 number of real tokens, at least 1 each."""
        steps_S = torch.arange(embedded_BSE.shape[1], device=embedded_BSE.device)
        mask_BS = steps_S < lengths_B[:, None]
        reversal_BS = torch.where(mask_BS, lengths_B[:, None] - 1 - steps_S, steps_S)
        hidden = self.embedding_dropout(embedded_BSE)
        for layer, (forward_lstm, backward_lstm) in enumerate(
            zip(self.forward_layers, self.backward_layers, strict=True)
        ):
            forward_BSh, _ = forward_lstm(hidden)
            backward_BSh, _ = backward_lstm(_reorder(hidden, reversal_BS))
            output_BSH = torch.cat((forward_BSh, _reorder(backward_BSh, reversal_BS)), dim=-1)
            hidden = self.dropout(output_BSH) + (hidden if layer else 0)
        last_B11 = (lengths_B - 1)[:, None, None]
        forward_last = output_BSH.gather(1, last_B11.expand(-1, -1, forward_BSh.shape[-1]))[:, 0]
        summary_BH = torch.cat((forward_last, output_BSH[:, 0, forward_BSh.shape[-1] :]), dim=-1)
        return Encoding(hidden, mask_BS, summary_BH)


def _reorder(values_BSX: Tensor, order_BS: Tensor) -> Tensor:
    return values_BSX.gather(1, order_BS[:, :, None].expand_as(values_BSX))
