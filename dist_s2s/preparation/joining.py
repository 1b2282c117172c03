"""The blocks' token ids to the files that training maps; each with its sums."""

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dist_s2s.preparation.encoding import IdsFile
from dist_s2s.text.token_files import CHECKED_BYTES, TARGET_COUNTS
from dist_s2s.text.vocabulary import EOS


@dataclass(frozen=True)
class WrittenFile:
    """A file's size and sums: SHA-256 of the whole, CRC-32 of each `CHECKED_BYTES`."""

    size: int
    sha256: str
    blocks: list[int]


class ArrayWriter:
    """Writes a one-dimensional .npy file piece by piece; a context manager."""

    def __init__(self, path: Path, dtype: np.dtype, count: int) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._sha256, self._rest, self._size = hashlib.sha256(), b"", 0
        self._blocks: list[int] = []
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(self, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes | np.ndarray) -> int:
        """Append bytes, or an array as they are."""
        data = data if isinstance(data, bytes) else data.tobytes()
        self._file.write(data)
        self._sha256.update(data)
        self._size += len(data)
        self._rest += data
        whole = len(self._rest) - len(self._rest) % CHECKED_BYTES
        for begin in range(0, whole, CHECKED_BYTES):
            self._blocks.append(zlib.crc32(self._rest[begin : begin + CHECKED_BYTES]))
        self._rest = self._rest[whole:]
        return len(data)

    def finish(self) -> WrittenFile:
        """Write everything through to the disk; return the sums."""
        self._file.flush()
        os.fsync(self._file.fileno())
        blocks = [*self._blocks, zlib.crc32(self._rest)] if self._rest else self._blocks
        return WrittenFile(self._size, self._sha256.hexdigest(), blocks)


@dataclass(frozen=True)
class JoinTask:
    """A side whose files are to be written.

    Attributes:
        name: "source" or "target".
        dtype: of the ids.
        num_tokens: of the vocabulary, if their frequencies are to be written too, that of EOS included.
        blocks: files of `encode_block`.
        folder: where to write.
    """

    name: str
    dtype: np.dtype
    num_tokens: int | None
    blocks: Sequence[Path]
    folder: Path


def join_side(task: JoinTask) -> tuple[dict[str, WrittenFile], int]:
    """Write `train.source.ids.npy` and its like from the blocks' files, in order; return them, and how many pairs."""
    blocks = [IdsFile(block) for block in task.blocks]
    ends = np.cumsum(np.concatenate([block.lengths(task.name) for block in blocks]), dtype="<i8")
    pairs, ids_file = len(ends), f"train.{task.name}.ids.npy"
    counts = np.zeros(task.num_tokens or 0, dtype="<i8")
    written = _write(task.folder, f"train.{task.name}.ends.npy", ends.dtype, pairs, [ends])
    with ArrayWriter(task.folder / ids_file, task.dtype, int(ends[-1]) if pairs else 0) as writer:
        for block in blocks:
            ids = block.ids(task.name)
            writer.write(ids)
            if task.num_tokens is not None:
                counts += np.bincount(ids, minlength=task.num_tokens)
        written[ids_file] = writer.finish()
    if task.num_tokens is not None:
        counts[EOS] += pairs
        written |= _write(task.folder, TARGET_COUNTS, counts.dtype, len(counts), [counts])
    return written, pairs


def _write(folder: Path, name: str, dtype: np.dtype, count: int, parts: Iterable[np.ndarray]) -> dict[str, WrittenFile]:
    with ArrayWriter(folder / name, dtype, count) as writer:
        for part in parts:
            writer.write(part)
        return {name: writer.finish()}
