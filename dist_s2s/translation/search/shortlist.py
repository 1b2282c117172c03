"""Which target tokens a search needs for a source sentence: the file of a run, and the lists of a batch.

A sentence lists the most frequent target tokens, the likeliest translations of each of its tokens, and its end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dist_s2s import UserError
from dist_s2s.models import LSTMEncoderDecoder
from dist_s2s.models.shortlist import ListedModel, TokenLists
from dist_s2s.text.batches import Batch
from dist_s2s.text.ragged import positions
from dist_s2s.text.side import TextSide
from dist_s2s.text.vocabulary import EOS, PAD, UNK
from dist_s2s.translation.output import OutputLayer

SHORTLIST = "shortlist.safetensors"
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shortlist:
    """The tokens to choose from.

    Attributes:
        frequent: ids of the most frequent target tokens, int64.
        ends: where the translations of each source token end, int64 [source tokens + 1], from 0 on.
        ids: the translations of all source tokens, one after the other, int64.
    """

    frequent: Ints
    ends: Ints
    ids: Ints

    def to_bytes(self, source: TextSide, target: TextSide) -> bytes:
        """Return the content of its file, which names the vocabularies that it belongs to."""
        tensors = {"frequent": self.frequent, "ends": self.ends, "ids": self.ids.astype(np.int32)}
        return save({name: torch.from_numpy(value) for name, value in tensors.items()}, _names(source, target))

    @classmethod
    def load(cls, path: Path, source: TextSide, target: TextSide) -> Self:
        """Read what ``to_bytes`` returned. Calls no collectives.

        Raises:
            UserError: it is damaged, or belongs to other vocabularies.
        """
        try:
            with safe_open(path, "numpy") as file:
                names, found = file.metadata(), {name: file.get_tensor(name) for name in ("frequent", "ends", "ids")}
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read as a shortlist: {error}") from None
        for name, expected in _names(source, target).items():
            if (names or {}).get(name) != expected:
                raise UserError(f"{path} belongs to another {name} vocabulary than the run's: export the run again")
        return cls(**{name: value.astype(np.int64) for name, value in found.items()})

    def lists(self, batch: Batch, never_chosen: Sequence[int], extra: Sequence[Sequence[int]] = ()) -> TokenLists:
        """Return the lists of a batch's sentences (local), each of which is the same whatever the batch.

        Args:
            never_chosen: ids that may not be listed; if unknown words are not among them, they are listed.
            extra: what each sentence lists besides.
        """
        tokens = batch.source[batch.source_mask].cpu().numpy()
        sizes = (self.ends[1:] - self.ends[:-1])[tokens]
        numbers = np.arange(len(batch.source))
        of_tokens = np.repeat(numbers, batch.source_lengths.cpu().numpy())
        of_all = np.append(self.frequent, [EOS, *({UNK} - set(never_chosen))])
        rows = [np.repeat(of_tokens, sizes), np.repeat(numbers, len(of_all))]
        ids = [self.ids[positions(self.ends[tokens], sizes)], np.tile(of_all, len(numbers))]
        for row, more in enumerate(extra):
            rows.append(np.full(len(more), row))
            ids.append(np.array(more, dtype=np.int64))
        union, places = _lists(np.concatenate(rows), np.concatenate(ids), len(numbers))
        return TokenLists(*(torch.from_numpy(each).to(batch.source.device) for each in (union, places)))


def listed_model(
    model: LSTMEncoderDecoder,
    output: OutputLayer,
    shortlist: Shortlist,
    batch: Batch,
    never_chosen: Sequence[int],
    extra: Sequence[Sequence[int]],
) -> ListedModel[Any, Any]:
    """Return what computes no more than a batch's lists; see there (collective, unless the output is replicated)."""
    lists = shortlist.lists(batch, never_chosen, extra)
    return ListedModel(model.without_output(), output.rows_of(lists.ids_U), lists)


def _lists(rows: Ints, ids: Ints, num_rows: int) -> tuple[Ints, Ints]:
    """Return the ids and the places of ``TokenLists``, of what each row has, once or more often."""
    width = int(ids.max()) + 1
    keys = np.unique(rows * width + ids)
    rows, ids = keys // width, keys % width
    counts = np.bincount(rows, minlength=num_rows)
    union = np.unique(np.append(ids, PAD))
    places = np.zeros((num_rows, counts.max()), dtype=np.int64)
    places[rows, np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]] = np.searchsorted(union, ids)
    return union, places


def _names(source: TextSide, target: TextSide) -> dict[str, str]:
    """Return a hash of each side's tokens."""
    sides = {"source": source, "target": target}
    return {
        name: hashlib.sha256("\n".join(side.vocabulary.tokens).encode()).hexdigest() for name, side in sides.items()
    }
