"""How the decoder looks at the source: a context vector for each of its states."""

from typing import Literal

import torch
from torch import Tensor, nn

from dist_s2s.models.encoder import Encoding

# Shapes: B sentences, T target positions, S source positions, H hidden_size.

AttentionName = Literal["none", "dot", "general", "additive"]


class GlobalAttention(nn.Module):
    """Luong et al. 2015: the score of a state q and a source position k is q·k (``dot``) or q·Wk (``general``)."""

    def __init__(self, hidden_size: int, kind: Literal["dot", "general"]) -> None:
        super().__init__()
        self.key = nn.Linear(hidden_size, hidden_size, bias=False) if kind == "general" else nn.Identity()

    def forward(self, query_BTH: Tensor, encoding: Encoding) -> Tensor:
        """Return contexts, [B, T, H]."""
        scores_BTS = query_BTH @ self.key(encoding.memory_BSH).transpose(1, 2)
        return _weighted_sum(scores_BTS, encoding)


class AdditiveAttention(nn.Module):
    """Bahdanau et al. 2015: the score is v · tanh(Wq + Uk)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query_BTH: Tensor, encoding: Encoding) -> Tensor:
        """Return contexts, [B, T, H]; takes memory for B·T·S·H values."""
        query_BT1H = self.query(query_BTH)[:, :, None]
        key_B1SH = self.key(encoding.memory_BSH)[:, None]
        scores_BTS = self.score(torch.tanh(query_BT1H + key_B1SH)).squeeze(-1)
        return _weighted_sum(scores_BTS, encoding)


class ContextVector(nn.Module):
    """No attention: every state sees the encoder's last states (Cho et al. 2014), whatever the sentence's length."""

    def forward(self, query_BTH: Tensor, encoding: Encoding) -> Tensor:
        """Return contexts, [B, T, H]."""
        return encoding.summary_BH[:, None].expand(-1, query_BTH.shape[1], -1)


def make_attention(name: AttentionName, hidden_size: int) -> nn.Module:
    """Return the attention module of that name."""
    if name == "none":
        return ContextVector()
    if name == "additive":
        return AdditiveAttention(hidden_size)
    return GlobalAttention(hidden_size, name)


def _weighted_sum(scores_BTS: Tensor, encoding: Encoding) -> Tensor:
    scores_BTS = scores_BTS.masked_fill(~encoding.mask_BS[:, None], float("-inf"))
    return scores_BTS.softmax(dim=-1).to(encoding.memory_BSH.dtype) @ encoding.memory_BSH
