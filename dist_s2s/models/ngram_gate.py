"""What n-grams add to the embedded source: a memory, read through a gate that sees the token."""

import torch
from torch import Tensor, nn

# Shapes: B sentences, S source positions, E embedding_dim, O orders of n-grams, D numbers in a row of their table.


class NgramGate(nn.Module):
    """Adds to each embedded token a projection of its n-grams' rows, as far as a gate lets it: Engram (2601.07372).

    With e the rows of a position's n-grams, one after the other: k = W_k e, v = W_v e, and the token's row x becomes
    x + sigmoid(RMSNorm(x) · RMSNorm(k) / sqrt(E)) v. Neither projection has a bias: rows of zeros add nothing.

    Args:
        dropout: share of n-grams left out in training. What is left out looks like an n-gram that was never seen, as
            many are later, and is therefore not made up for by scaling the others.
    """

    def __init__(self, embedding_dim: int, ngram_dim: int, num_orders: int, dropout: float) -> None:
        super().__init__()
        self.key = nn.Linear(num_orders * ngram_dim, embedding_dim, bias=False)
        self.value = nn.Linear(num_orders * ngram_dim, embedding_dim, bias=False)
        self.token_norm = nn.RMSNorm(embedding_dim, eps=1e-6)
        self.key_norm = nn.RMSNorm(embedding_dim, eps=1e-6)
        self._embedding_dim, self._ngram_dim, self._dropout = embedding_dim, ngram_dim, dropout

    def forward(self, source_BSX: Tensor) -> Tensor:
        """Return [B, S, E] from tokens' rows with their n-grams' beside them, [B, S, E + O * D]."""
        tokens_BSE, ngrams_BSX = source_BSX.tensor_split([self._embedding_dim], dim=-1)
        if self.training and self._dropout:
            ngrams_BSOD = ngrams_BSX.unflatten(-1, (-1, self._ngram_dim))
            kept_BSO1 = torch.rand_like(ngrams_BSOD[..., :1]) >= self._dropout
            ngrams_BSX = (ngrams_BSOD * kept_BSO1).flatten(2)
        match_BS1 = (self.token_norm(tokens_BSE) * self.key_norm(self.key(ngrams_BSX))).sum(-1, keepdim=True)
        gate_BS1 = torch.sigmoid(match_BS1 / self._embedding_dim**0.5)
        read_BSE: Tensor = gate_BS1 * self.value(ngrams_BSX)
        return tokens_BSE + read_BSE.to(tokens_BSE.dtype)
