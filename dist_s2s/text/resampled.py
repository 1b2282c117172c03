"""A corpus whose subwords are drawn anew in each epoch: BPE-dropout (Provilkov et al. 2020, arXiv 1910.13267)."""

import hashlib
from functools import lru_cache

from torch import Tensor

from dist_s2s.text.corpus import Corpus, Example
from dist_s2s.text.side import TextSide

_KEPT = 4096  # examples; more than most global batches have, of which each is asked for twice


class ResampledCorpus:
    """One epoch of a corpus: a pure function of (seed, epoch, example), whatever the number of ranks.

    Args:
        corpus: the examples as they are without dropout.
        source, target: whose subwords are drawn anew; None for a side that stays as it is.
        dropout: share of the merges that are skipped.
        seed, epoch: of the draw.
    """

    def __init__(
        self, corpus: Corpus, source: TextSide | None, target: TextSide | None, dropout: float, seed: int, epoch: int
    ) -> None:
        self._corpus, self._source, self._target = corpus, source, target
        self._dropout, self._seed, self._epoch = dropout, seed, epoch
        self._example = lru_cache(_KEPT)(self._draw)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each example without dropout, by which batches are cut: int64 [N, 2]."""
        return self._corpus.lengths

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, index: int, /) -> Example:
        return self._example(index)

    def _draw(self, index: int) -> Example:
        example = self._corpus[index]
        return Example(
            self._resample(self._source, example.source, f"{index} source"),
            self._resample(self._target, example.target, f"{index} target"),
        )

    def _resample(self, side: TextSide | None, ids: list[int], what: str) -> list[int]:
        if side is None:
            return ids
        digest = hashlib.blake2b(f"subwords {self._seed} {self._epoch} {what}".encode(), digest_size=4).digest()
        return side.resample(ids, self._dropout, int.from_bytes(digest, "little"))
