"""The LSTM encoder-decoder: all of a translator but its embedding tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from dist_s2s.models.attention import Attention, AttentionName
from dist_s2s.models.decoder import Decoder, DecoderState
from dist_s2s.models.dropout import DropoutRates
from dist_s2s.models.encoder import Encoder, Encoding
from dist_s2s.models.ngram_gate import NgramGate
from dist_s2s.models.output import apply_output


class LSTMEncoderDecoder(nn.Module):
    """LSTM encoder, LSTM decoder with attention, and an output layer: an EncoderDecoder.

    output: maps attentional states [..., H] to outputs [..., X]: nn.Linear(H, V) to logits of V tokens, X = V. With
        nn.Identity() the outputs are the states themselves, X = H, for an output table that lives outside the model.
    readout_size: H of the attentional states; None: hidden_size.
    The other settings are those of ``ModelConfig``.
    Shapes: B sentences, S and T source and target positions, E embedding_dim, H hidden_size.
    """

    def __init__(
        self,
        output: nn.Module,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        attention: AttentionName = "dot",
        input_feeding: bool = False,
        *,
        embedding_dropout: float | None = None,
        source_word_dropout: float = 0.0,
        target_word_dropout: float = 0.0,
        variational_dropout: bool = False,
        encoder_layers: int | None = None,
        decoder_layers: int | None = None,
        layer_norm: bool = False,
        readout_size: int | None = None,
        embedding_scale: float = 1.0,
        lexical: bool = False,
        ngram_dim: int = 0,
        num_ngrams: int = 0,
        ngram_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        source = DropoutRates(dropout, embedding_dropout, source_word_dropout, variational_dropout)
        target = replace(source, words=target_word_dropout)
        encoder_layers, decoder_layers = encoder_layers or num_layers, decoder_layers or num_layers
        self.encoder = Encoder(embedding_dim, hidden_size, encoder_layers, source, layer_norm, embedding_scale, lexical)
        self.decoder = Decoder(
            embedding_dim,
            hidden_size,
            decoder_layers,
            target,
            attention,
            input_feeding,
            layer_norm,
            readout_size,
            embedding_scale,
            lexical,
        )
        self.output = output
        # Last, so that without n-grams everything before begins with the same numbers.
        self.ngram_gate = NgramGate(embedding_dim, ngram_dim, num_ngrams, ngram_dropout) if num_ngrams else None

    def forward(
        self, source_BSE: Tensor, source_lengths_B: Tensor, target_BTE: Tensor, apply_output: bool = True
    ) -> Tensor:
        """Return outputs [B, T, X] for the token after each target position, with teacher forcing.

        apply_output: if not, these are the attentional states [B, T, H], for a loss that applies the layer in chunks.
        """
        encoding, state = self.encode(source_BSE, source_lengths_B)
        attentional_BTH, _ = self.decoder(target_BTE, state, encoding)
        outputs_BTX: Tensor = self.output(attentional_BTH) if apply_output else attentional_BTH
        return outputs_BTX

    @torch.no_grad()
    def attention_weights(self, source_BSE: Tensor, source_lengths_B: Tensor, target_BTE: Tensor) -> Tensor:
        """Return what each target position looks at in the source, [B, T, S], with teacher forcing.

        Row t belongs to the token after target position t. The model must have attention.
        """
        with self._recording() as seen:  # with input feeding, a position at a time
            self(source_BSE, source_lengths_B, target_BTE, apply_output=False)
        return torch.cat(seen, dim=1)

    def without_output(self) -> "LSTMEncoderDecoder":
        """Return a model that shares all layers with this one but the output layer: its outputs are states [B, H]."""
        other = copy(self)
        other._modules = {**self._modules, "output": nn.Identity()}
        return other

    def encode(self, source_BSE: Tensor, source_lengths_B: Tensor) -> tuple[Encoding, DecoderState]:
        """Return the source as the decoder sees it, and the decoder's state before the first target token."""
        if self.ngram_gate is not None:
            source_BSE = self.ngram_gate(source_BSE)
        encoding = self.decoder.attention.prepare(self.encoder(source_BSE, source_lengths_B))
        return encoding, self.decoder.initial_state(encoding)

    def step(self, embedded_BE: Tensor, state: DecoderState, encoding: Encoding) -> tuple[Tensor, DecoderState]:
        """Return outputs [B, X] after one more target token, and the state after it."""
        attentional_BH, state = self.decoder.step(embedded_BE, state, encoding)
        return apply_output(self.output, attentional_BH), state

    def step_with_attention(
        self, embedded_BE: Tensor, state: DecoderState, encoding: Encoding
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """Return what ``step`` does, and what the position looks at in the source, [B, S].

        The model must have attention, whose scores are computed twice.
        """
        with self._recording() as seen:
            outputs_BX, state = self.step(embedded_BE, state, encoding)
        [weights_B1S] = seen
        return outputs_BX, state, weights_B1S[:, 0]

    @contextmanager
    def _recording(self) -> Iterator[list[Tensor]]:
        """Within: keep the weights of attention, [B, T, S] of each of its calls."""
        attention, seen = self.decoder.attention, list[Tensor]()
        assert isinstance(attention, Attention)

        def record(_: nn.Module, inputs: tuple[Tensor, Encoding], __: Tensor) -> None:
            seen.append(attention.weights(*inputs))

        with attention.register_forward_hook(record):
            yield seen
