"""LSTM decoder with attention."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dist_s2s.models.attention import AttentionName, make_attention
from dist_s2s.models.encoder import Encoding

# Shapes: B sentences, T target positions, E embedding_dim, H hidden_size, L layers.


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


class Decoder(nn.Module):
    """num_layers LSTM layers, with residuals from the second on, then attention: tanh(W [context; state]), Luong 2015.

    Attention is computed after the whole target has passed the LSTM, in one matrix product. With ``input_feeding``
    (Luong et al. 2015) each step also reads the attentional state before it, so the target is walked through in steps.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        attention: AttentionName,
        input_feeding: bool,
    ) -> None:
        super().__init__()
        input_size = embedding_dim + (hidden_size if input_feeding else 0)
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.bridge = nn.Linear(hidden_size, num_layers * hidden_size)
        self.layers = nn.ModuleList(nn.LSTM(size, hidden_size, batch_first=True) for size in sizes)
        self.attention = make_attention(attention, hidden_size)
        self.combine = nn.Linear(2 * hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.input_feeding = input_feeding

    def initial_state(self, encoding: Encoding) -> DecoderState:
        """Return the state before the first target token, made from the encoder's last states."""
        summary_BH = encoding.summary_BH
        hidden_BLH = torch.tanh(self.bridge(summary_BH)).view(len(summary_BH), len(self.layers), -1)
        hidden_LBH = hidden_BLH.transpose(0, 1).contiguous()
        return DecoderState(hidden_LBH, torch.zeros_like(hidden_LBH), torch.zeros_like(summary_BH))

    def forward(self, embedded_BTE: Tensor, state: DecoderState, encoding: Encoding) -> tuple[Tensor, DecoderState]:
        """Return attentional states, [B, T, H], of T ≥ 1 target positions after ``state``, and the state after them.

        embedded_BTE: rows of the target table for SOS and the tokens so far (teacher forcing: the reference's tokens).
        """
        embedded_BTE = self.dropout(embedded_BTE)
        if not self.input_feeding:
            return self._advance(embedded_BTE, state, encoding)
        attentional = []
        for embedded_BE in embedded_BTE.unbind(1):
            step_B1H, state = self._advance(self._fed(embedded_BE, state)[:, None], state, encoding)
            attentional.append(step_B1H)
        return torch.cat(attentional, dim=1), state

    def step(self, embedded_BE: Tensor, state: DecoderState, encoding: Encoding) -> tuple[Tensor, DecoderState]:
        """Return the attentional state, [B, H], of one more target position, and the state after it.

        The same as ``forward``, with cells: for a single position nn.LSTM costs up to three times as much.
        """
        hidden_BX = self.dropout(embedded_BE)
        if self.input_feeding:
            hidden_BX = self._fed(hidden_BX, state)
        outputs, cells = [], []
        for layer, lstm in enumerate(self.layers):
            before = (state.hidden_LBH[layer], state.cell_LBH[layer])
            output_BH, cell_BH = torch.lstm_cell(hidden_BX, before, *lstm.parameters())
            outputs.append(output_BH)
            cells.append(cell_BH)
            hidden_BX = self.dropout(output_BH) + (hidden_BX if layer else 0)
        attentional_BH = self._attend(hidden_BX[:, None], encoding)[:, 0]
        return attentional_BH, DecoderState(torch.stack(outputs), torch.stack(cells), attentional_BH)

    def _fed(self, embedded_BE: Tensor, state: DecoderState) -> Tensor:
        return torch.cat((embedded_BE, state.attentional_BH.to(embedded_BE.dtype)), dim=-1)

    def _advance(self, input_BTX: Tensor, state: DecoderState, encoding: Encoding) -> tuple[Tensor, DecoderState]:
        hidden, cells, outputs = input_BTX, [], []
        for layer, lstm in enumerate(self.layers):
            start = (
                state.hidden_LBH[layer : layer + 1].contiguous(),
                state.cell_LBH[layer : layer + 1].contiguous(),
            )
            output_BTH, (last_1BH, cell_1BH) = lstm(hidden, start)
            outputs.append(last_1BH)
            cells.append(cell_1BH)
            hidden = self.dropout(output_BTH) + (hidden if layer else 0)
        attentional_BTH = self._attend(hidden, encoding)
        return attentional_BTH, DecoderState(torch.cat(outputs), torch.cat(cells), attentional_BTH[:, -1])

    def _attend(self, hidden_BTH: Tensor, encoding: Encoding) -> Tensor:
        context_BTH = self.attention(hidden_BTH, encoding)
        joined_BTX = torch.cat((context_BTH, hidden_BTH), dim=-1)
        attentional_BTH: Tensor = self.dropout(torch.tanh(self.combine(joined_BTX)))
        return attentional_BTH
