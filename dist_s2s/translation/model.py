"""From a configuration to its encoder-decoder."""

from torch import nn

from dist_s2s.config import Config
from dist_s2s.models import LSTMEncoderDecoder


def make_model(config: Config, output: nn.Module) -> LSTMEncoderDecoder:
    """Build the encoder-decoder that ``model.kind`` names, untrained. Calls no collectives.

    Args:
        output: what the model applies to its states.
    """
    model, embedding = config.model, config.embedding
    match model.kind:
        case "lstm":
            return LSTMEncoderDecoder(
                output=output,
                embedding_dim=model.embedding_dim,
                hidden_size=model.hidden_size,
                num_layers=model.num_layers,
                dropout=model.dropout,
                attention=model.attention,
                input_feeding=model.input_feeding,
                embedding_dropout=model.embedding_dropout,
                source_word_dropout=model.source_word_dropout,
                target_word_dropout=model.target_word_dropout,
                variational_dropout=model.variational_dropout,
                encoder_layers=model.encoder_layers,
                decoder_layers=model.decoder_layers,
                layer_norm=model.layer_norm,
                readout_size=model.readout_dim,
                lexical=model.lexical,
                embedding_scale=model.embedding_dim**0.5 if model.scale_embeddings else 1.0,
                ngram_dim=embedding.ngram_dim,
                num_ngrams=len(embedding.ngrams),
                ngram_dropout=embedding.ngram_dropout,
            )
