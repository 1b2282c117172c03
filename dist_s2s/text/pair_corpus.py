"""Sentence pairs that become ids when they are asked for, because their vocabularies may change."""

from collections.abc import Sequence
from typing import Self

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
        sizes = [(len(source.tokenize(a)), len(target.tokenize(b))) for a, b in pairs]
        kept = [number for number, size in enumerate(sizes) if all(size)]
        lengths = torch.tensor([sizes[number] for number in kept], dtype=torch.int64).reshape(-1, 2)
        return cls([pairs[number] for number in kept], lengths, source, target)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        """Return a pair as ids of the present vocabularies."""
        source, target = self._pairs[index]
        return Example(self._source.encode(source), self._target.encode(target))
