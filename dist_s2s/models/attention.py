"""How the decoder looks at the source: a context vector for each of its states."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dist_s2s.models.encoder import Encoding

# Shapes: B sentences, T target positions, S source positions, H hidden_size.

AttentionName = Literal["none", "dot", "general", "additive"]
Give = Callable[[Tensor, Encoding], Tensor]  # what attention makes of its scores [B, T, S]: weights, or contexts
NUMBERS_AT_A_TIME = 1 << 24  # in the largest tensor of an attention, unless gradients need all of it


class Attention(nn.Module):
    """Contexts are sums of what the encoder made of the source positions, weighted by a softmax of their scores."""

    def forward(self, query_BTH: Tensor, encoding: Encoding) -> Tensor:
        """Return contexts, [B, T, H]."""
        return self._look(query_BTH, encoding, _weighted_sum)

    def weights(self, query_BTH: Tensor, encoding: Encoding) -> Tensor:
        """Return how much of each context comes from each source position, [B, T, S]: rows of sum 1, 0 at padding."""
        return self._look(query_BTH, encoding, _weights)

    def _look(self, query_BTH: Tensor, encoding: Encoding, give: Give) -> Tensor:
        """Return what ``give`` makes of the scores of each state and source position."""
        raise NotImplementedError


class GlobalAttention(Attention):
    """Luong et al. 2015: the score of a state q and a source position k is q·k (``dot``) or q·Wk (``general``)."""

    def __init__(self, hidden_size: int, kind: Literal["dot", "general"]) -> None:
        super().__init__()
        self.key = nn.Linear(hidden_size, hidden_size, bias=False) if kind == "general" else nn.Identity()

    def prepare(self, encoding: Encoding) -> Encoding:
        """Return the encoding with its keys, which no step then works out again; those of ``dot`` are the memory."""
        if isinstance(self.key, nn.Identity):
            return encoding
        return encoding._replace(keys_BSH=self.key(encoding.memory_BSH))

    def _look(self, query_BTH: Tensor, encoding: Encoding, give: Give) -> Tensor:
        key_BHS = _keys(self.key, encoding).transpose(1, 2)
        return _in_parts(query_BTH, encoding.mask_BS.numel(), lambda part: give(part @ key_BHS, encoding))


class AdditiveAttention(Attention):
    """Bahdanau et al. 2015: the score is v · tanh(Wq + Uk). With gradients it takes memory for B·T·S·H values."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def prepare(self, encoding: Encoding) -> Encoding:
        """Return the encoding with its keys, which no step then works out again."""
        return encoding._replace(keys_BSH=self.key(encoding.memory_BSH))

    def _look(self, query_BTH: Tensor, encoding: Encoding, give: Give) -> Tensor:
        key_B1SH = _keys(self.key, encoding)[:, None]

        def look(part_BtH: Tensor) -> Tensor:
            query_Bt1H = self.query(part_BtH)[:, :, None]
            scores_BtS = self.score(torch.tanh(query_Bt1H + key_B1SH)).squeeze(-1)
            return give(scores_BtS, encoding)

        return _in_parts(query_BTH, key_B1SH.numel(), look)


class ContextVector(nn.Module):
    """No attention: every state sees the encoder's last states (Cho et al. 2014), whatever the sentence's length."""

    def prepare(self, encoding: Encoding) -> Encoding:
        """Return the encoding: there are no keys."""
        return encoding

    def forward(self, query_BTH: Tensor, encoding: Encoding) -> Tensor:
        """Return contexts, [B, T, H]."""
        return encoding.summary_BH[:, None].expand(-1, query_BTH.shape[1], -1)


def make_attention(name: AttentionName, hidden_size: int) -> GlobalAttention | AdditiveAttention | ContextVector:
    """Return the attention module of that name."""
    if name == "none":
        return ContextVector()
    if name == "additive":
        return AdditiveAttention(hidden_size)
    return GlobalAttention(hidden_size, name)


def _keys(key: nn.Module, encoding: Encoding) -> Tensor:
    keys_BSH: Tensor = key(encoding.memory_BSH) if encoding.keys_BSH is None else encoding.keys_BSH
    return keys_BSH


def _in_parts(query_BTH: Tensor, numbers: int, look: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what all target positions see, looked at as many at a time as NUMBERS_AT_A_TIME allows.

    Args:
        numbers: in the largest tensor for each target position.
        look: from states of some target positions to what they see, [B, t, ...].
    """
    size = max(1, NUMBERS_AT_A_TIME // numbers)
    if torch.is_grad_enabled() or query_BTH.shape[1] <= size:  # with gradients everything is kept anyway
        return look(query_BTH)
    return torch.cat([look(part_BtH) for part_BtH in query_BTH.split(size, dim=1)], dim=1)


def _weights(scores_BTS: Tensor, encoding: Encoding) -> Tensor:
    return scores_BTS.masked_fill(~encoding.mask_BS[:, None], float("-inf")).softmax(dim=-1)


def _weighted_sum(scores_BTS: Tensor, encoding: Encoding) -> Tensor:
    values_BSX = encoding.memory_BSH if encoding.values_BSX is None else encoding.values_BSX
    return _weights(scores_BTS, encoding).to(values_BSX.dtype) @ values_BSX
