"""The LSTM encoder-decoder. Plain PyTorch: it runs on one process with nn.Embedding, and is then its own reference."""

from dist_s2s.models.lstm import Seq2Seq
from dist_s2s.models.output import best_of_logits
from dist_s2s.models.search import beam_search, greedy_search

__all__ = ["Seq2Seq", "beam_search", "best_of_logits", "greedy_search"]
