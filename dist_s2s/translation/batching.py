"""What a translator works on at a time when it does not train."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.text.batches import Batch, evaluation_batches
from dist_s2s.text.corpus import Corpus

BATCH_SIZE = 64
_POSITIONS_PER_SENTENCE = 256


@dataclass(frozen=True)
class Batching:
    """How much is worked on at a time, so that memory follows neither from the number of sentences nor from a long one.

    Attributes:
        batch_size: most sentences of a rank at a time. Source and target positions, with padding and with every
            hypothesis of a beam, are at most 256 times as many, so long sentences come in smaller batches.
        max_source_tokens: a sentence of more is translated in pieces.
    """

    batch_size: int = BATCH_SIZE
    max_source_tokens: int = 100

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return what a run has measured on its training pairs; of older runs, the longest that they trained on."""
        return cls(max_source_tokens=config.translation.max_source_tokens or config.data.max_length)

    def with_options(self, batch_size: int | None, max_source_tokens: int | None) -> Self:
        """Return the same with other values, each of them kept where it is None."""
        return replace(
            self,
            batch_size=batch_size or self.batch_size,
            max_source_tokens=max_source_tokens or self.max_source_tokens,
        )

    def batches(
        self, corpus: Corpus, ranks: Ranks, hypotheses: int = 1, target_lengths_N: Tensor | None = None
    ) -> Iterator[Batch]:
        """Yield this rank's batches of all examples, on its device; see ``evaluation_batches``. Calls no collectives.

        Args:
            corpus: the same on every rank.
            ranks: each gets the same number of batches.
            hypotheses: of each example, which all keep its source beside them.
            target_lengths_N: int64 positions of each example's target; None: those of the corpus, and EOS.
        """
        batches = evaluation_batches(
            corpus,
            ranks.rank,
            ranks.world_size,
            max_rows=self.batch_size,
            max_tokens=max(1, self.batch_size * _POSITIONS_PER_SENTENCE // hypotheses),
            target_lengths_N=target_lengths_N,
        )
        return (batch.to(ranks.device) for batch in batches)
