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

from dist_s2s.preparation.encoding import SIDES, IdsFile
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


def join(
    blocks: Sequence[Path], folder: Path, dtypes: Sequence[np.dtype], num_targets: int
) -> tuple[dict[str, WrittenFile], int]:
    """Write `train.source.ids.npy` and its like from the blocks' files, in order.

    Args:
        blocks: files of `encode_block`.
        folder: where to write.
        dtypes: of the ids of both sides.
        num_targets: tokens of the target vocabulary, whose frequencies are written too, that of EOS included.

    Returns:
        The files by name, and the number of pairs.
    """
    written: dict[str, WrittenFile] = {}
    counts = np.zeros(num_targets, dtype="<i8")
    pairs = 0
    for name, dtype in zip(SIDES, dtypes, strict=True):
        lengths = np.concatenate([IdsFile(block).side(name)[1] for block in blocks])
        ends = np.cumsum(lengths, dtype="<i8")
        pairs = len(ends)
        written |= _write(folder, f"train.{name}.ends.npy", ends.dtype, pairs, [ends])
        with ArrayWriter(folder / f"train.{name}.ids.npy", dtype, int(ends[-1]) if pairs else 0) as writer:
            for block in blocks:
                ids, _ = IdsFile(block).side(name)
                writer.write(ids)
                if name == "target":
                    counts += np.bincount(ids, minlength=num_targets)
            written[f"train.{name}.ids.npy"] = writer.finish()
    counts[EOS] += pairs
    return written | _write(folder, TARGET_COUNTS, counts.dtype, num_targets, [counts]), pairs


def _write(folder: Path, name: str, dtype: np.dtype, count: int, parts: Iterable[np.ndarray]) -> dict[str, WrittenFile]:
    with ArrayWriter(folder / name, dtype, count) as writer:
        for part in parts:
            writer.write(part)
        return {name: writer.finish()}
