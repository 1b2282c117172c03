"""Encoder-decoder models, and search. Plain PyTorch: with nn.Embedding on one process they are their own reference."""

from dist_s2s.models.lstm import LSTMEncoderDecoder
from dist_s2s.models.output import best_of_logits, given_of_logits
from dist_s2s.models.protocols import EncoderDecoder
from dist_s2s.models.search import Demand, Demands, Hypothesis, Ranking, Rules, beam_search

__all__ = [
    "Demand",
    "Demands",
    "EncoderDecoder",
    "Hypothesis",
    "LSTMEncoderDecoder",
    "Ranking",
    "Rules",
    "beam_search",
    "best_of_logits",
    "given_of_logits",
]
