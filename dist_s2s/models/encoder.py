"""Bidirectional LSTM encoder."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_s2s.models.dropout import Dropout, DropoutRates, EmbeddingInput

# Shapes: B sentences, S source positions, E embedding_dim, H hidden_size.


class Encoding(NamedTuple):
    """What the decoder sees of a source sentence."""

    memory_BSH: Tensor
    mask_BS: Tensor  # bool, True at real tokens
    summary_BH: Tensor  # last states of both directions of the top layer
    values_BSX: Tensor | None = None  # what attention averages, if not memory_BSH: memory, then embeddings
    keys_BSH: Tensor | None = None  # what attention compares states with; None: it is made of the memory

    def select(self, rows_N: Tensor) -> "Encoding":
        """Return the encoding of the sentences ``rows_N``, int64 [N], in that order."""
        memory, mask, summary = (each.index_select(0, rows_N) for each in self[:3])
        values, keys = (None if each is None else each.index_select(0, rows_N) for each in self[3:])
        return Encoding(memory, mask, summary, values, keys)


class Encoder(nn.Module):
    """num_layers bidirectional LSTM layers of hidden_size / 2 a direction, with residuals from the second layer on.

    The backward direction reads each sentence reversed within its own length, so a result never depends on how much
    padding its batch has; that needs no packed sequences, which cost three times as much in bf16 on a CPU.

    scale: what embeddings are multiplied by.
    with_embeddings: attention is to average the embeddings too, for a LexicalModel.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: DropoutRates,
        layer_norm: bool = False,
        scale: float = 1.0,
        with_embeddings: bool = False,
    ) -> None:
        super().__init__()
        if hidden_size % 2:
            raise ValueError(f"hidden_size must be even for two directions, but is {hidden_size}")
        sizes = [embedding_dim] + [hidden_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(nn.LSTM(size, hidden_size // 2, batch_first=True) for size in sizes)
        self.backward_layers = nn.ModuleList(nn.LSTM(size, hidden_size // 2, batch_first=True) for size in sizes)
        self.input = EmbeddingInput(dropout, scale)
        self.with_embeddings = with_embeddings
        self.dropout = Dropout(dropout.hidden, dropout.variational)
        self.norms = make_norms(layer_norm, hidden_size, num_layers)

    def forward(self, embedded_BSE: Tensor, lengths_B: Tensor) -> Encoding:
        """Encode rows of the source table; lengths_B: int64 number of real tokens, at least 1 each."""
        steps_S = torch.arange(embedded_BSE.shape[1], device=embedded_BSE.device)
        mask_BS = steps_S < lengths_B[:, None]
        reversal_BS = torch.where(mask_BS, lengths_B[:, None] - 1 - steps_S, steps_S)
        hidden = words_BSE = self.input(embedded_BSE)
        for layer, (forward_lstm, backward_lstm) in enumerate(
            zip(self.forward_layers, self.backward_layers, strict=True)
        ):
            forward_BSh, _ = forward_lstm(hidden)
            backward_BSh, _ = backward_lstm(_reorder(hidden, reversal_BS))
            output_BSH = torch.cat((forward_BSh, _reorder(backward_BSh, reversal_BS)), dim=-1)
            hidden = self.norms[layer](self.dropout(output_BSH) + (hidden if layer else 0))
        last_B11 = (lengths_B - 1)[:, None, None]
        forward_last = output_BSH.gather(1, last_B11.expand(-1, -1, forward_BSh.shape[-1]))[:, 0]
        summary_BH = torch.cat((forward_last, output_BSH[:, 0, forward_BSh.shape[-1] :]), dim=-1)
        values = torch.cat((hidden, words_BSE.to(hidden.dtype)), dim=-1) if self.with_embeddings else None
        return Encoding(hidden, mask_BS, summary_BH, values)


def make_norms(layer_norm: bool, hidden_size: int, num_layers: int) -> nn.ModuleList:
    """Return what each layer's output passes through, residual included: layer normalisation (Ba et al. 2016), or not.

    nn.LSTM is one fused call, which normalising its gates at each step would give up: as a loop it takes 1.4 times as
    long on a CPU. Gains begin at hidden_size^-¼, about the size of an LSTM's states: then the dot product of two
    outputs, an attention's score, begins with variance 1. With gains of 1 it would be hidden_size, and a softmax
    of such scores looks at a single position.
    """
    norms = nn.ModuleList(nn.LayerNorm(hidden_size) if layer_norm else nn.Identity() for _ in range(num_layers))
    for norm in norms:
        if isinstance(norm, nn.LayerNorm):
            nn.init.constant_(norm.weight, hidden_size**-0.25)
    return norms


def _reorder(values_BSX: Tensor, order_BS: Tensor) -> Tensor:
    return values_BSX.gather(1, order_BS[:, :, None].expand_as(values_BSX))
