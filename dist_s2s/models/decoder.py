"""LSTM decoder with attention."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_s2s.models.attention import AttentionName, make_attention
from dist_s2s.models.dropout import Dropout, DropoutRates, EmbeddingInput, drop
from dist_s2s.models.encoder import Encoding, make_norms
from dist_s2s.models.lexical import LexicalModel

# Shapes: B sentences, T target positions, E embedding_dim, H hidden_size, of attentional states readout_size, L layers.


class DecoderState(NamedTuple):
    """All that the decoder carries from one target position to the next."""

    hidden_LBH: Tensor
    cell_LBH: Tensor
    attentional_BH: Tensor

    def select(self, rows_N: Tensor) -> "DecoderState":
        """Return the state of the sentences ``rows_N``, int64 [N], in that order."""
        return DecoderState(
            self.hidden_LBH.index_select(1, rows_N),
            self.cell_LBH.index_select(1, rows_N),
            self.attentional_BH.index_select(0, rows_N),
        )


class DecoderLSTM(nn.LSTM):
    """A layer of the decoder, which search asks for a position at a time."""

    def step(self, input_BX: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return hidden and cell state [B, H] after one more position: nn.LSTM would take up to three times as long."""
        hidden_BH, cell_BH = torch.lstm_cell(input_BX, state, *self.parameters())
        return hidden_BH, cell_BH


class Decoder(nn.Module):
    """num_layers LSTM layers, with residuals from the second on, then attention: tanh(W [context; state]), Luong 2015.

    Attention is computed after the whole target has passed the LSTM, in one matrix product. With ``input_feeding``
    (Luong et al. 2015) each step also reads the attentional state before it, so the target is walked through in steps.

    readout_size: numbers of an attentional state; None: hidden_size.
    scale: what embeddings are multiplied by.
    lexical: add a LexicalModel's outputs to attentional states; the encoding must have its embeddings.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: DropoutRates,
        attention: AttentionName,
        input_feeding: bool,
        layer_norm: bool = False,
        readout_size: int | None = None,
        scale: float = 1.0,
        lexical: bool = False,
    ) -> None:
        super().__init__()
        readout_size = readout_size or hidden_size
        input_size = embedding_dim + (readout_size if input_feeding else 0)
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.bridge = nn.Linear(hidden_size, num_layers * hidden_size)
        self.layers = nn.ModuleList(DecoderLSTM(size, hidden_size, batch_first=True) for size in sizes)
        self.attention = make_attention(attention, hidden_size)
        self.combine = nn.Linear(2 * hidden_size, readout_size)
        self.input = EmbeddingInput(dropout, scale)
        self.dropout = Dropout(dropout.hidden, dropout.variational)
        self.norms = make_norms(layer_norm, hidden_size, num_layers)
        self.lexical = LexicalModel(embedding_dim, readout_size) if lexical else None
        self.input_feeding = input_feeding

    def initial_state(self, encoding: Encoding) -> DecoderState:
        """Return the state before the first target token, made from the encoder's last states."""
        summary_BH = encoding.summary_BH
        hidden_BLH = torch.tanh(self.bridge(summary_BH)).view(len(summary_BH), len(self.layers), -1)
        hidden_LBH = hidden_BLH.transpose(0, 1).contiguous()
        attentional_BH = summary_BH.new_zeros(len(summary_BH), self.combine.out_features)
        return DecoderState(hidden_LBH, torch.zeros_like(hidden_LBH), attentional_BH)

    def forward(self, embedded_BTE: Tensor, state: DecoderState, encoding: Encoding) -> tuple[Tensor, DecoderState]:
        """Return attentional states [B, T, readout_size] of T ≥ 1 positions after ``state``, and the state after them.

        embedded_BTE: rows of the target table for SOS and the tokens so far (teacher forcing: the reference's tokens).
        """
        masks = self._masks(embedded_BTE)
        embedded_BTE = self.input(embedded_BTE)
        if not self.input_feeding:
            return self._advance(embedded_BTE, state, encoding, masks)
        attentional = []
        for position, embedded_BE in enumerate(embedded_BTE.unbind(1)):
            step_masks = [_at(mask, position) for mask in masks]
            step_B1H, state = self._advance(self._fed(embedded_BE, state)[:, None], state, encoding, step_masks)
            attentional.append(step_B1H)
        return torch.cat(attentional, dim=1), state

    def step(self, embedded_BE: Tensor, state: DecoderState, encoding: Encoding) -> tuple[Tensor, DecoderState]:
        """Return the attentional state, [B, readout_size], of one more target position, and the state after it.

        The same as ``forward`` without dropout.
        """
        hidden_BX = self.input(embedded_BE[:, None])[:, 0]
        if self.input_feeding:
            hidden_BX = self._fed(hidden_BX, state)
        outputs, cells = [], []
        for layer, (lstm, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            before = (state.hidden_LBH[layer], state.cell_LBH[layer])
            output_BH, cell_BH = lstm.step(hidden_BX, before)  # type: ignore[operator]
            outputs.append(output_BH)
            cells.append(cell_BH)
            hidden_BX = norm(output_BH + (hidden_BX if layer else 0))
        attentional_BH = self._attend(hidden_BX[:, None], encoding)[:, 0]
        return attentional_BH, DecoderState(torch.stack(outputs), torch.stack(cells), attentional_BH)

    def _fed(self, embedded_BE: Tensor, state: DecoderState) -> Tensor:
        return torch.cat((embedded_BE, state.attentional_BH.to(embedded_BE.dtype)), dim=-1)

    def _masks(self, embedded_BTE: Tensor) -> list[Tensor | None]:
        """Return what is dropped of each layer's output, of the attentional states, and of the lexical model."""
        size, positions, embedding_dim = embedded_BTE.shape
        units = [self.bridge.in_features] * len(self.layers) + [self.combine.out_features]
        units += [] if self.lexical is None else [embedding_dim]
        return [self.dropout.mask((size, positions, each), embedded_BTE) for each in units]

    def _advance(
        self, input_BTX: Tensor, state: DecoderState, encoding: Encoding, masks: Sequence[Tensor | None]
    ) -> tuple[Tensor, DecoderState]:
        hidden, cells, outputs = input_BTX, [], []
        for layer, lstm in enumerate(self.layers):
            start = (
                state.hidden_LBH[layer : layer + 1].contiguous(),
                state.cell_LBH[layer : layer + 1].contiguous(),
            )
            output_BTH, (last_1BH, cell_1BH) = lstm(hidden, start)
            outputs.append(last_1BH)
            cells.append(cell_1BH)
            hidden = self.norms[layer](drop(output_BTH, masks[layer]) + (hidden if layer else 0))
        attentional_BTH = self._attend(hidden, encoding, *masks[len(self.layers) :])
        return attentional_BTH, DecoderState(torch.cat(outputs), torch.cat(cells), attentional_BTH[:, -1])

    def _attend(
        self,
        hidden_BTH: Tensor,
        encoding: Encoding,
        mask_BTH: Tensor | None = None,
        lexical_mask_BTE: Tensor | None = None,
    ) -> Tensor:
        context_BTH, *words = self.attention(hidden_BTH, encoding).split(self.bridge.in_features, dim=-1)
        attentional_BTH = drop(torch.tanh(self.combine(torch.cat((context_BTH, hidden_BTH), dim=-1))), mask_BTH)
        if self.lexical is not None:
            attentional_BTH = attentional_BTH + self.lexical(torch.cat(words, dim=-1), lexical_mask_BTE)
        return attentional_BTH


def _at(mask_BTH: Tensor | None, position: int) -> Tensor | None:
    """Return the mask of one position; a variational mask has one for all."""
    return mask_BTH if mask_BTH is None or mask_BTH.shape[1] == 1 else mask_BTH[:, position : position + 1]
