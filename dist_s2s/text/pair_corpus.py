"""Sentence pairs that become ids when they are asked for, because their vocabularies may change."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dist_s2s.text.corpus import Example
from dist_s2s.text.side import TextSide


class PairCorpus:
    """A corpus in memory, as text. The lengths are those of the tokens, whatever their ids.

    Args:
        pairs: source and target sentences.
        lengths: tokens of each, int64 [N, 2].
        source, target: how they become ids.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], lengths: Tensor, source: TextSide, target: TextSide) -> None:
        self._pairs, self.lengths, self._source, self._target = pairs, lengths, source, target

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]], source: TextSide, target: TextSide) -> Self:
        """Return the corpus of all pairs that have a token on both sides."""
        cut = [side.cut(pair[column] for pair in pairs) for column, side in enumerate((source, target))]
        lengths = torch.from_numpy(np.stack([texts.lengths() for texts in cut], axis=1))
        kept = lengths.all(dim=1).nonzero()[:, 0]
        return cls([pairs[number] for number in kept.tolist()], lengths[kept], source, target)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        """Return a pair as ids of the present vocabularies."""
        source, target = self._pairs[index]
        return Example(self._source.encode(source), self._target.encode(target))
