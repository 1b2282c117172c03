"""Writing the vectors of a vocabulary, for other programs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = Iterable[NDArray[np.float32]]  # blocks [N, D], in id order


def write_word2vec(path: Path, tokens: Sequence[str], dim: int, rows: Rows, binary: bool = False) -> None:
    """Write a header and a word with its vector for each token, as text or as bytes.

    Text has as many digits as float32 needs to be read as the same number.
    """
    names = iter(tokens)
    with open(path, "wb") as file:
        file.write(f"{len(tokens)} {dim}\n".encode())
        for block in rows:
            for row, token in zip(block, names, strict=False):  # takes a token only once there is a row
                data = row.astype("<f4").tobytes() if binary else " ".join(row.astype(str)).encode()
                file.write(token.encode() + b" " + data + b"\n")


def write_projector(folder: Path, tokens: Sequence[str], rows: Rows) -> None:
    """Write what TensorBoard's projector and projector.tensorflow.org load: vectors.tsv and metadata.tsv."""
    folder.mkdir(parents=True, exist_ok=True)
    names = iter(tokens)
    with (
        open(folder / "vectors.tsv", "w", encoding="utf-8", newline="\n") as vectors,
        open(folder / "metadata.tsv", "w", encoding="utf-8", newline="\n") as metadata,
    ):
        for block in rows:
            for row, token in zip(block, names, strict=False):  # takes a token only once there is a row
                vectors.write("\t".join(row.astype(str)) + "\n")
                metadata.write(token + "\n")
