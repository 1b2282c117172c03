"""Token ids of many sentences in two files, of which each block is checked when it is first read.

    train.source.ids.npy    the ids of all sentences, one after the other: uint16, or uint32 for a large vocabulary
    train.source.ends.npy   where each sentence ends in them: int64

Both are NumPy's files. They are read piece by piece and not mapped: the pages of a mapping count as this process's
memory, and the system maps half a megabyte for each sentence that is looked at.
"""

import os
import weakref
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.text.corpus import Example

TARGET_COUNTS = "train.target.counts.npy"
CHECKED_BYTES = 1 << 20  # a checksum covers as many
_ENDS_AT_A_TIME = 1 << 20


class ArrayFile:
    """A one-dimensional .npy file, each block of which is checked before it is first used.

    Args:
        path: the file.
        sums: CRC-32 of each `CHECKED_BYTES` of it.

    Raises:
        UserError: it is not an array.
    """

    def __init__(self, path: Path, sums: Sequence[int]) -> None:
        self._path, self._sums = path, sums
        try:
            with open(path, "rb") as file:
                np.lib.format.read_magic(file)
                shape, _, self._dtype = np.lib.format.read_array_header_1_0(file)
                self._start, size = file.tell(), os.fstat(file.fileno()).st_size
                self._file = os.dup(file.fileno())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
        weakref.finalize(self, os.close, self._file)
        if len(shape) != 1 or self._dtype.hasobject or size != self._start + shape[0] * self._dtype.itemsize:
            raise UserError(f"{path} is damaged: it holds no array of one dimension")
        self._count = shape[0]
        self._checked = bytearray(len(sums))

    def __len__(self) -> int:
        return self._count

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return the values from `begin` up to `end`, which are few beside those of the file.

        Raises:
            UserError: the part of the file in which they lie is damaged.
        """
        place, size = self._start + begin * self._dtype.itemsize, (end - begin) * self._dtype.itemsize
        if size:
            for block in range(place // CHECKED_BYTES, (place + size - 1) // CHECKED_BYTES + 1):
                if not self._checked[block]:
                    self._check(block)
        return np.frombuffer(os.pread(self._file, size, place), self._dtype)

    def _check(self, block: int) -> None:
        begin = block * CHECKED_BYTES
        if zlib.crc32(os.pread(self._file, CHECKED_BYTES, begin)) != self._sums[block]:
            raise UserError(
                f"{self._path} is damaged between bytes {begin:,} and {begin + CHECKED_BYTES:,}: "
                "prepare the corpus again"
            )
        self._checked[block] = True


class TokenFile:
    """The sentences of one side.

    Args:
        folder: of the prepared corpus.
        name: `train.source` or `train.target`.
        sums: of each file, by name, for `ArrayFile`.
    """

    def __init__(self, folder: Path, name: str, sums: Mapping[str, Sequence[int]]) -> None:
        files = [f"{name}.ids.npy", f"{name}.ends.npy"]
        self._ids, self._ends = (ArrayFile(folder / file, sums[file]) for file in files)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        begin, end = self._ends.read(index - 1, index + 1).tolist() if index else (0, int(self._ends.read(0, 1)[0]))
        ids: list[int] = self._ids.read(begin, end).tolist()
        return ids

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each sentence: int32 [N]."""
        lengths, last = np.empty(len(self), dtype=np.int32), 0
        for begin in range(0, len(self), _ENDS_AT_A_TIME):
            ends = self._ends.read(begin, min(begin + _ENDS_AT_A_TIME, len(self)))
            lengths[begin : begin + len(ends)] = np.diff(ends, prepend=last)
            last = ends[-1]
        return lengths


class StoredCorpus:
    """A corpus on the disk, of which this process holds no more than what it reads: see `Corpus`.

    Args:
        folder: of the prepared corpus, whose `train` files it reads.
        sums: see `TokenFile`.
    """

    def __init__(self, folder: Path, sums: Mapping[str, Sequence[int]]) -> None:
        self._source, self._target = (TokenFile(folder, f"train.{side}", sums) for side in ("source", "target"))
        self._counts = folder / TARGET_COUNTS

    def target_counts(self) -> Tensor:
        """Return how often each target token is to be predicted, EOS included: int64 [V]."""
        return torch.from_numpy(np.load(self._counts, allow_pickle=False))

    @property
    def lengths(self) -> Tensor:
        """Count the tokens of each example, without reading them: int32 [N, 2]."""
        lengths = torch.empty(len(self), 2, dtype=torch.int32)
        for column, side in enumerate((self._source, self._target)):
            lengths[:, column] = torch.from_numpy(side.lengths())
        return lengths

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} is outside the corpus: numbers run from 0 to {len(self) - 1}")
        return Example(self._source[index], self._target[index])
