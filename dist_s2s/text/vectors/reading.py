"""Files of word vectors, read word by word: only the vectors that somebody wants become numbers.

    word2vec text, fastText .vec   a line `COUNT DIM`, then a line `WORD NUMBER … NUMBER` for each word
    GloVe                          the same without the first line
    word2vec binary                the first line, then for each word its bytes, a space and DIM float32

each plain, compressed, or in a zip archive: see `PackedFile`. Which of them it is shows in the first bytes.
"""

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from dist_s2s import UserError
from dist_s2s.text.inputs.packed import PackedFile

Vector = NDArray[np.float32]
_LOOK_BYTES = 1 << 16  # at the beginning; a first line is shorter
_READ_BYTES = 1 << 20


class Record(NamedTuple):
    """A word of the file with its vector, which is still as it was written.

    Attributes:
        place: where it is, for people: "line 3", or "word 3" in a binary file.
        word: UTF-8.
        data: its numbers, as text or as bytes.
    """

    place: str
    word: bytes
    data: bytes


class VectorFile:
    """A file of word vectors.

    Args:
        path: of the file, or `archive.zip/member`.

    Attributes:
        dim: numbers of each vector.
        form: how they are written.

    Raises:
        UserError: if it cannot be read, or is no file of word vectors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = PackedFile.find(os.fspath(path))
        start = self._file.begin(_LOOK_BYTES)
        self.has_header, self.dim, self.form = self._recognise(start)

    def parse(self, record: Record) -> Vector:
        """Return the vector of a record, float32 [dim].

        Raises:
            UserError: if it has another number of numbers, or one that is not finite.
        """
        if self.form == "binary":
            vector = np.frombuffer(record.data, dtype="<f4")
        else:
            try:
                vector = _float32(map(float, record.data.split()))  # twice as fast as numpy's own reading
            except ValueError:
                raise self._wrong(record, f"has something that is not a number: {_start_of(record.data)}") from None
        if len(vector) != self.dim:
            raise self._wrong(record, f"has {len(vector)} numbers, where the first has {self.dim}")
        if not np.isfinite(vector).all():
            number = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise self._wrong(record, f"has {vector[number]} as number {number + 1} of its vector")
        return cast(Vector, vector)

    def records(self) -> Iterator[Record]:
        """Yield the words in the order of the file. A word with a space in it, as GloVe has some, is left out.

        Raises:
            UserError: for a line with too few numbers, or a file that ends in the middle of a vector or is damaged.
        """
        with self._file.reading() as stream:
            yield from self._binary_records(stream) if self.form == "binary" else self._text_records(stream)

    def _text_records(self, file: BinaryIO) -> Iterator[Record]:
        for number, line in enumerate(file, start=1):
            if number == 1 and self.has_header:
                continue
            line = line.rstrip()
            surplus = line.count(b" ") + line.count(b"\t") - self.dim
            if surplus > 0 or not line:
                continue
            word, _, data = line.partition(b"\t" if b"\t" in line and b" " not in line else b" ")
            record = Record(f"line {number}", word, data)
            if surplus < 0:
                raise self._wrong(record, f"has {self.dim + surplus} numbers, where the first has {self.dim}")
            yield record

    def _binary_records(self, file: BinaryIO) -> Iterator[Record]:
        count = int(file.readline().split()[0])
        size, read, begin = 4 * self.dim, b"", 0
        for number in range(1, count + 1):
            space = read.find(b" ", begin)
            if space < 0 or len(read) - space - 1 < size:
                read, begin = read[begin:] + file.read(_READ_BYTES + size), 0
                space = read.find(b" ")
            end = space + 1 + size
            if space < 0 or len(read) < end:
                raise UserError(
                    f"{self._file} ends at word {number}, within a vector, but its first line tells of {count} words; "
                    "get the file again"
                )
            # Some programs put a newline after a vector.
            yield Record(f"word {number}", read[begin:space].lstrip(b"\n"), read[space + 1 : end])
            begin = end

    def _recognise(self, start: bytes) -> tuple[bool, int, Literal["text", "binary"]]:
        """Return whether there is a header, the dimension, and whether numbers are text or bytes."""
        first, _, rest = start.partition(b"\n")
        fields = first.split()
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            dim = int(fields[1])
            if dim < 1:
                raise UserError(f"{self._file} line 1 tells of vectors of {dim} numbers")
            line = rest.partition(b"\n")[0].split()
            is_text = not rest or (len(line) > 1 and _are_numbers(line[-min(dim, len(line) - 1) :]))
            return True, dim, "text" if is_text else "binary"
        if len(fields) < 2 or not _are_numbers(fields[1:]):
            raise UserError(
                f"{self._file} is no file of word vectors: line 1 is neither COUNT DIM nor WORD NUMBER … NUMBER, but "
                f"begins with {_start_of(first)}"
            )
        return False, len(fields) - 1, "text"

    def _wrong(self, record: Record, what: str) -> UserError:
        word = record.word.decode("utf-8", "replace")
        return UserError(f"{self._file} {record.place}: the word {word!r} {what}; remove or repair it")


def _float32(numbers: Iterable[float]) -> Vector:
    with np.errstate(over="ignore"):  # infinities are found later
        return np.array(list(numbers)).astype(np.float32)


def _are_numbers(fields: list[bytes]) -> bool:
    try:
        _float32(map(float, fields))
    except ValueError:
        return False
    return True


def _start_of(data: bytes) -> str:
    text = data[:40].decode("utf-8", "replace")
    return repr(text + "…" if len(data) > 40 else text)
