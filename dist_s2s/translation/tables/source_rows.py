"""All rows that are looked up for source tokens: their own, and those of their n-grams."""

import torch
from torch import Tensor

from dist_s2s.config import Config
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding, lookup
from dist_s2s.text.batches import Batch
from dist_s2s.text.ngrams import ngram_ids
from dist_s2s.text.vocabulary import Vocabulary
from dist_s2s.translation.tables.int8_table import as_numbers
from dist_s2s.translation.tables.make import make_table


class SourceRows:
    """The rows of a batch's source, with one table for tokens, and one for hashed n-grams if there are any.

    Building it is collective if there are n-grams. Their rows begin with zeros, and so does what they add: an n-gram
    that was never trained on changes nothing.

    Args:
        config: of whose ``embedding`` section the keys ``ngrams`` and ``ngram_...`` count here.
        tokens: the table of source tokens.
        vocabulary: theirs; it may change from batch to batch.
        quantized: whether the table of n-grams is one of int8, as that of tokens then is.

    Attributes:
        tables: whose rows are looked up, in this order.
    """

    def __init__(
        self,
        config: Config,
        tokens: DistributedEmbedding,
        vocabulary: Vocabulary,
        ranks: Ranks,
        quantized: bool = False,
    ) -> None:
        embedding = config.embedding
        self._orders, self._num_rows, self._vocabulary = embedding.ngrams, embedding.ngram_rows, vocabulary
        self.tables = [tokens]
        if self._orders:
            sizes = self._num_rows, embedding.ngram_dim
            self.tables.append(
                make_table(config, *sizes, ranks, padding_idx=0, init_std=0.0, own_size=True, quantized=quantized)
            )

    @property
    def named_tables(self) -> dict[str, DistributedEmbedding]:
        """Those besides the tokens' table, by the name they have in checkpoints."""
        return {"ngram_table": self.tables[1]} if self._orders else {}

    def ids(self, batch: Batch) -> list[Tensor]:
        """Return what to look up in each table for a batch (local)."""
        if not self._orders:
            return [batch.source]
        found = torch.from_numpy(
            ngram_ids(batch.source.cpu().numpy(), self._vocabulary.tokens, self._orders, self._num_rows)
        )
        if not batch.indices:  # the row that counts for nothing touches no n-gram
            found.zero_()
        return [batch.source, found.to(batch.source.device)]

    def join(self, rows: list[Tensor]) -> Tensor:
        """Return what the model reads, [B, S, X], from the rows of each table (local)."""
        tokens_BSE, *ngrams = map(as_numbers, self.tables, rows)
        return torch.cat([tokens_BSE, *(ngrams_BSOD.flatten(2) for ngrams_BSOD in ngrams)], dim=-1)

    def __call__(self, batch: Batch) -> Tensor:
        """Look up what the model reads of a batch's source, [B, S, X], in one exchange (collective)."""
        return self.join(lookup(self.tables, self.ids(batch)))
