"""The training pairs of a block to token ids."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dist_s2s.preparation.reading import PairsFile, write_arrays
from dist_s2s.preparation.report import Dropped
from dist_s2s.preparation.selecting import TRAIN
from dist_s2s.text.side import SideSettings, TextSide

SIDES = ("source", "target")
_KNOWN_WORDS = 100_000  # kept from block to block
KnownWords = dict[str, list[int]]


@dataclass(frozen=True)
class EncodeTask:
    """A block that is to be encoded into a file.

    Attributes:
        pairs: the block's pairs.
        places: which of them are for training.
        file: what is written.
        folder: where the sides' files are.
        settings: of both sides.
        max_length: most tokens of a side; None for no limit.
    """

    pairs: Path
    places: np.ndarray
    file: Path
    folder: Path
    settings: tuple[SideSettings, SideSettings]
    max_length: int | None


class IdsFile:
    """A block's training pairs as token ids."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def ids(self, name: str) -> np.ndarray:
        """Return the ids of all sentences of side `name`, one after the other."""
        return self._part(f"{name}_ids")

    def lengths(self, name: str) -> np.ndarray:
        """Return how many ids each sentence of side `name` has."""
        return self._part(f"{name}_lengths")

    def dropped(self) -> Dropped:
        """Return what was left out for its length."""
        return Dropped(*json.loads(self._part("dropped").tobytes()))

    def _part(self, name: str) -> np.ndarray:
        with np.load(self._file, allow_pickle=False) as parts:
            part: np.ndarray = parts[name]
        return part


def encode_block(task: EncodeTask) -> None:
    """Encode a block's training pairs, leave out those that are too long, and write the rest, unless it is there."""
    if task.file.exists():
        return
    columns = PairsFile(task.pairs).columns(np.flatnonzero(task.places == TRAIN))
    sides, known = _sides(task.folder, *task.settings)
    for words in known:
        if len(words) > _KNOWN_WORDS:
            words.clear()
    parts = [
        side.encode_flat(texts, words if side.tokenizer.cuts_at_spaces else None)  # whole sentences hardly recur
        for side, texts, words in zip(sides, columns, known, strict=True)
    ]
    ids, lengths = zip(*parts, strict=True)
    fits = (lengths[0] > 0) & (lengths[1] > 0)
    if task.max_length is not None:
        fits &= np.maximum(lengths[0], lengths[1]) <= task.max_length
    dropped = Dropped()
    if not fits.all():
        dropped.add(
            "length", int((~fits).sum()), ("\t".join(text[row] for text in columns) for row in np.flatnonzero(~fits))
        )
    arrays = {}
    for name, side, flat, sizes in zip(SIDES, sides, ids, lengths, strict=True):
        arrays[f"{name}_lengths"] = sizes[fits].astype(np.int32)
        arrays[f"{name}_ids"] = flat[np.repeat(fits, sizes)].astype(ids_dtype(side))
    text = json.dumps([dropped.counts, dropped.examples]).encode()
    write_arrays(task.file, dropped=np.frombuffer(text, dtype=np.uint8), **arrays)


def ids_dtype(side: TextSide) -> np.dtype[np.unsignedinteger]:
    """Return the smallest type for the ids of a vocabulary."""
    return np.dtype("<u2" if len(side.vocabulary) <= 1 << 16 else "<u4")


@lru_cache(maxsize=1)
def _sides(folder: Path, source: SideSettings, target: SideSettings) -> tuple[list[TextSide], list[KnownWords]]:
    """Return both sides, and the words that this process has met so far."""
    return [TextSide.load(folder, "source", source), TextSide.load(folder, "target", target)], [{}, {}]
