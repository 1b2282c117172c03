"""Training pairs of which some, in each epoch, are of another domain, so that a model does not forget it."""

import torch
from torch import Tensor

from dist_s2s.text.corpus import Corpus, Example


class MixedCorpus:
    """A corpus, and another one whose pairs join it: in each epoch as many as make up a share of all.

    Their order is that of seeded shuffles, one after the other, so each of them has its turn before any has a second.

    Args:
        own: of which every pair occurs in each epoch.
        other: the other domain; not empty.
        share: of an epoch's pairs that are the other's, between 0 and 1.
    """

    def __init__(self, own: Corpus, other: Corpus, share: float) -> None:
        self.own, self.other = own, other
        self.others_in_epoch = max(1, round(len(own) * share / (1 - share)))
        self.lengths: Tensor = torch.cat([own.lengths, other.lengths])

    def __len__(self) -> int:
        return len(self.own) + len(self.other)

    def __getitem__(self, index: int, /) -> Example:
        return self.own[index] if index < len(self.own) else self.other[index - len(self.own)]

    def numbers(self, seed: int, epoch: int) -> Tensor:
        """Return which examples an epoch has: int64 [N], a pure function of the seed and the epoch."""
        begin, size = epoch * self.others_in_epoch, len(self.other)
        first, last = begin // size, (begin + self.others_in_epoch - 1) // size
        shuffles = [
            torch.randperm(size, generator=torch.Generator().manual_seed((seed * 1_000_003 + turn) % 2**63))
            for turn in range(first, last + 1)
        ]
        start = begin - first * size
        others = torch.cat(shuffles)[start : start + self.others_in_epoch]
        return torch.cat([torch.arange(len(self.own)), len(self.own) + others])


class CorpusPart:
    """Some examples of a corpus, which may occur more than once.

    Args:
        corpus: that they are of.
        numbers: which, int64 [N].
    """

    def __init__(self, corpus: Corpus, numbers: Tensor) -> None:
        self._corpus, self._numbers = corpus, numbers
        self.lengths: Tensor = corpus.lengths[numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int, /) -> Example:
        return self._corpus[int(self._numbers[index])]


def of_epoch(corpus: Corpus, seed: int, epoch: int) -> Corpus:
    """Return the examples that an epoch has: all of a corpus, or its part if it is a mixed one."""
    return CorpusPart(corpus, corpus.numbers(seed, epoch)) if isinstance(corpus, MixedCorpus) else corpus
