"""Token ids of many sentences in two mapped files, of which each block is checked when it is first read.

    train.source.ids.npy    the ids of all sentences, one after the other: uint16, or uint32 for a large vocabulary
    train.source.ends.npy   where each sentence ends in them: int64

Both are NumPy's files, to be opened with `numpy.load(file, mmap_mode="r")` as well.
"""

import mmap
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
_READS_BETWEEN_RELEASES = 1 << 8  # each may map 64 KiB around what it reads, in each of four files


class MappedArray:
    """A one-dimensional .npy file in mapped memory, each block of which is checked before it is first used.

    What has been read stays in the system's cache, but not in this process's resident memory: see `release`.

    Args:
        path: the file.
        sums: CRC-32 of each `CHECKED_BYTES` of it.

    Raises:
        UserError: it is not an array.
    """

    def __init__(self, path: Path, sums: Sequence[int]) -> None:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
        if not isinstance(array, np.memmap) or array.ndim != 1:
            raise UserError(f"{path} is damaged: it holds no array of one dimension")
        self._path, self._sums = path, sums
        self._map: mmap.mmap = array._mmap  # type: ignore[attr-defined]
        self._bytes = memoryview(self._map)
        self._start, self._item = len(self._bytes) - array.nbytes, array.itemsize
        self._checked = bytearray(len(sums))
        self._array = np.asarray(array)

    def __len__(self) -> int:
        return len(self._array)

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return the values from `begin` up to `end`, without a copy.

        Raises:
            UserError: the part of the file in which they lie is damaged.
        """
        if begin < end:
            first = (self._start + begin * self._item) // CHECKED_BYTES
            last = (self._start + end * self._item - 1) // CHECKED_BYTES
            for block in range(first, last + 1):
                if not self._checked[block]:
                    self._check(block)
        return self._array[begin:end]

    def release(self) -> None:
        """Take the pages that were read out of this process's memory; they are mapped again when they are read."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _check(self, block: int) -> None:
        begin = block * CHECKED_BYTES
        if zlib.crc32(self._bytes[begin : begin + CHECKED_BYTES]) != self._sums[block]:
            raise UserError(
                f"{self._path} is damaged between bytes {begin:,} and {begin + CHECKED_BYTES:,}: "
                "prepare the corpus again"
            )
        self._checked[block] = True
        self.release()


class TokenFile:
    """The sentences of one side.

    Args:
        folder: of the prepared corpus.
        name: `train.source` or `train.target`.
        sums: of each file, by name, for `MappedArray`.
    """

    def __init__(self, folder: Path, name: str, sums: Mapping[str, Sequence[int]]) -> None:
        files = [f"{name}.ids.npy", f"{name}.ends.npy"]
        self._ids, self._ends = (MappedArray(folder / file, sums[file]) for file in files)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        begin, end = self._ends.read(index - 1, index + 1).tolist() if index else (0, int(self._ends.read(0, 1)[0]))
        ids: list[int] = self._ids.read(begin, end).tolist()
        return ids

    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each sentence: int32 [N]."""
        ends = self._ends.read(0, len(self._ends))
        lengths = np.diff(ends, prepend=0).astype(np.int32)
        self._ends.release()
        return lengths

    def release(self) -> None:
        """See `MappedArray.release`."""
        self._ids.release()
        self._ends.release()


class MappedCorpus:
    """A corpus on the disk, of which this process holds no more than what it reads: see `Corpus`.

    Args:
        folder: of the prepared corpus, whose `train` files it reads.
        sums: see `TokenFile`.
    """

    def __init__(self, folder: Path, sums: Mapping[str, Sequence[int]]) -> None:
        self._source, self._target = (TokenFile(folder, f"train.{side}", sums) for side in ("source", "target"))
        self._counts = folder / TARGET_COUNTS
        self._reads = 0

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
        self._reads += 1
        if self._reads % _READS_BETWEEN_RELEASES == 0:
            self._source.release()
            self._target.release()
        return Example(self._source[index], self._target[index])
