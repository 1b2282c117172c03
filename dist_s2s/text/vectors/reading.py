"""Files of word vectors, read block by block: only the vectors that somebody wants become numbers.

    word2vec text, fastText .vec   a line `COUNT DIM`, then a line `WORD NUMBER … NUMBER` for each word
    GloVe                          the same without the first line
    word2vec binary                the first line, then for each word its bytes, a space and DIM float32

each plain, compressed, or in a zip archive: see `PackedFile`. Which of them it is shows in the first bytes.
"""

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dist_s2s import UserError, counted
from dist_s2s.text.inputs.packed import PackedFile

Vectors = NDArray[np.float32]
_SPACES = re.compile(rb" {2,}")
_LOOK_BYTES = 1 << 16  # at the beginning; a first line is shorter
_BLOCK_BYTES = 1 << 22  # few enough rounds of several ranks, and little memory


class Record(NamedTuple):
    """A word of the file with its vector, which is still as it was written.

    Attributes:
        number: of the line, or in a binary file of the word, from 1.
        word: UTF-8.
        data: its numbers, as text or as bytes.
    """

    number: int
    word: bytes
    data: bytes


class Block(NamedTuple):
    """Some of a file's words, not yet cut.

    Attributes:
        first: number of its first line or word.
        content: whole lines, or words with their vectors.
    """

    first: int
    content: bytes


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

    def records(self) -> Iterator[Record]:
        """Yield the words in the order of the file; see ``cut``."""
        for block in self.blocks():
            yield from self.cut(block)

    def blocks(self) -> Iterator[Block]:
        """Yield the file in blocks of some megabytes, which end where a word's vector does.

        Raises:
            UserError: if the file ends in the middle of a vector, or is damaged.
        """
        with self._file.reading() as stream:
            header = stream.readline() if self.has_header else b""
            if self.form == "binary":
                yield from self._binary_blocks(stream, int(header.split()[0]))
            else:
                yield from _text_blocks(stream, 1 + self.has_header)

    def cut(self, block: Block) -> list[Record]:
        """Return the words of a block. One with a space in it, as GloVe has some, is left out.

        Raises:
            UserError: for a line with too few numbers.
        """
        return self._cut_bytes(block) if self.form == "binary" else self._cut_lines(block)

    def place(self, number: int) -> str:
        """Return where the record of this number is, for people."""
        return f"{'word' if self.form == 'binary' else 'line'} {number}"

    def parse(self, records: Sequence[Record]) -> Vectors:
        """Return the vectors of records, float32 [N, dim].

        Raises:
            UserError: if one has another number of numbers, or one that is not finite.
        """
        data = [record.data for record in records]
        if self.form == "binary":
            vectors = np.frombuffer(bytearray().join(data), dtype="<f4")  # can be written to
        else:
            vectors = _numbers(b" ".join(data))
        if len(vectors) != len(records) * self.dim or not np.isfinite(vectors).all():
            vectors = np.concatenate([self._parse_one(record) for record in records])  # which tells of what is wrong
        return vectors.reshape(len(records), self.dim)

    def _parse_one(self, record: Record) -> Vectors:
        if self.form == "binary":
            vector = np.frombuffer(record.data, dtype="<f4")
        else:
            try:
                vector = _float32(map(float, record.data.split()))
            except ValueError:
                raise self._wrong(record, f"has something that is not a number: {_start_of(record.data)}") from None
        if len(vector) != self.dim:
            raise self._wrong(record, f"has {counted(len(vector), 'number')}, where the first has {self.dim}")
        if not np.isfinite(vector).all():
            number = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise self._wrong(record, f"has {vector[number]} as number {number + 1} of its vector")
        return vector

    def _cut_lines(self, block: Block) -> list[Record]:
        records = []
        for number, line in enumerate(block.content.split(b"\n"), start=block.first):
            line = _SPACES.sub(b" ", line.rstrip())
            surplus = line.count(b" ") + line.count(b"\t") - self.dim
            if surplus > 0 or not line:
                continue
            word, _, data = line.partition(b"\t" if b"\t" in line and b" " not in line else b" ")
            record = Record(number, word, data)
            if surplus < 0:
                raise self._wrong(
                    record, f"has {counted(self.dim + surplus, 'number')}, where the first has {self.dim}"
                )
            records.append(record)
        return records

    def _cut_bytes(self, block: Block) -> list[Record]:
        records: list[Record] = []
        content, begin, size = block.content, 0, 4 * self.dim
        while (space := content.find(b" ", begin)) >= 0:
            # Some programs put a newline after a vector.
            word = content[begin:space].lstrip(b"\n")
            begin = space + 1 + size
            records.append(Record(block.first + len(records), word, content[space + 1 : begin]))
        return records

    def _binary_blocks(self, file: BinaryIO, count: int) -> Iterator[Block]:
        first, left = 1, b""
        while first <= count:
            read = file.read(_BLOCK_BYTES + 4 * self.dim)
            content = left + read
            words, end = self._whole_words(content, count + 1 - first)
            if not words and not read:
                raise UserError(
                    f"{self._file} ends at word {first}, within a vector, but its first line tells of "
                    f"{counted(count, 'word')}; get the file again"
                )
            if words:
                yield Block(first, content[:end])
            first, left = first + words, content[end:]

    def _whole_words(self, content: bytes, most: int) -> tuple[int, int]:
        """Return how many words with their vectors are in the content, of those expected, and where the last ends."""
        words, end, size = 0, 0, 4 * self.dim
        while words < most:
            space = content.find(b" ", end)
            if space < 0 or space + 1 + size > len(content):
                break
            words, end = words + 1, space + 1 + size
        return words, end

    def _recognise(self, start: bytes) -> tuple[bool, int, Literal["text", "binary"]]:
        """Return whether there is a header, the dimension, and whether numbers are text or bytes."""
        first, _, rest = start.partition(b"\n")
        fields = first.split()
        if len(fields) == 2 and all(field.isdigit() for field in fields):
            dim = int(fields[1])
            if dim < 1:
                raise UserError(f"{self._file} line 1 tells of vectors of {counted(dim, 'number')}")
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
        return UserError(f"{self._file} {self.place(record.number)}: the word {word!r} {what}; remove or repair it")


def _text_blocks(file: BinaryIO, first: int) -> Iterator[Block]:
    left = b""
    while read := file.read(_BLOCK_BYTES):
        lines, newline, rest = read.rpartition(b"\n")
        if newline:
            yield Block(first, left + lines)
            first += lines.count(b"\n") + 1
            left = rest
        else:
            left += rest
    if left:
        yield Block(first, left)


def _numbers(text: bytes) -> Vectors:
    """Return the numbers of a text, up to the first thing that is none."""
    with np.errstate(over="ignore"), warnings.catch_warnings():  # infinities are found later
        warnings.simplefilter("ignore", DeprecationWarning)  # of something that is no number
        try:
            return np.fromstring(text, dtype=np.float64, sep=" ").astype(np.float32)
        except ValueError:  # the same, as newer versions of NumPy have announced
            return np.empty(0, np.float32)


def _float32(numbers: Iterable[float]) -> Vectors:
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
