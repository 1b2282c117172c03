"""Encoder-decoder models, and search. Plain PyTorch: with nn.Embedding on one process they are their own reference."""

from dist_s2s.models.lstm import LSTMEncoderDecoder
from dist_s2s.models.output import best_of_logits
from dist_s2s.models.protocols import EncoderDecoder
from dist_s2s.models.search import Hypothesis, beam_search, greedy_search

__all__ = ["EncoderDecoder", "Hypothesis", "LSTMEncoderDecoder", "beam_search", "best_of_logits", "greedy_search"]
