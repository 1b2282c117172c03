"""Files of word vectors: every form, and what is wrong with them."""

import bz2
import gzip
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from dist_s2s import UserError
from dist_s2s.text.vectors import reading
from dist_s2s.text.vectors.reading import VectorFile
from dist_s2s.text.vectors.writing import write_word2vec

WORDS = ["the", "喝茶", "café", "1", "naïve"]
ROWS = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32)


def text_of(header: bool, separator: str = " ", end: str = "\n") -> bytes:
    lines = [separator.join([word, *row.astype(str)]) for word, row in zip(WORDS, ROWS, strict=True)]
    return end.join([*([f"{len(WORDS)} 4"] if header else []), *lines, ""]).encode()


def binary(newline: bytes) -> bytes:
    records = [word.encode() + b" " + row.tobytes() + newline for word, row in zip(WORDS, ROWS, strict=True)]
    return f"{len(WORDS)} 4\n".encode() + b"".join(records)


FORMS: dict[str, bytes] = {
    "word2vec": text_of(header=True),
    "word2vec with a space at line ends": text_of(header=True, end=" \n"),
    "GloVe": text_of(header=False),
    "tabs": text_of(header=False, separator="\t"),
    "carriage returns": text_of(header=True, end="\r\n"),
    "binary": binary(b"\n"),
    "binary without newlines": binary(b""),
}


def rows_of(path: Path) -> dict[str, list[float]]:
    file = VectorFile(path)
    records = list(file.records())
    return {record.word.decode(): row for record, row in zip(records, file.parse(records).tolist(), strict=True)}


def zstd(data: bytes) -> bytes:
    compressed: bytes = pytest.importorskip("zstandard").compress(data)
    return compressed


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress, zstd])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised(tmp_path: Path, form: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(pack(FORMS[form]))
    assert rows_of(path) == dict(zip(WORDS, ROWS.tolist(), strict=True))


def test_a_member_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "vectors.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for form, content in FORMS.items():
            archive.writestr(f"{form}.vec", content)
    assert rows_of(path / "binary.vec") == rows_of(path / "GloVe.vec") == dict(zip(WORDS, ROWS.tolist(), strict=True))
    with pytest.raises(UserError, match=r"vectors\.zip: which of its 7 members"):
        rows_of(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 30, 64])
def test_blocks_of_any_size_hold_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, size: int
) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(FORMS[form])
    whole = list(VectorFile(path).records())
    monkeypatch.setattr(reading, "_BLOCK_BYTES", size)
    file = VectorFile(path)
    blocks = list(file.blocks())
    assert len(blocks) > 1 or file.form == "binary"
    assert [record for block in blocks for record in file.cut(block)] == whole
    assert [record.number for record in whole] == list(range(whole[0].number, whole[0].number + len(WORDS)))


def test_no_records_have_no_vectors(tmp_path: Path) -> None:
    for form in ("GloVe", "binary"):
        (tmp_path / "vectors").write_bytes(FORMS[form])
        assert VectorFile(tmp_path / "vectors").parse([]).shape == (0, 4)


def test_words_with_spaces_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("a 1 2 3 4\n. . . 5 6 7 8\n\nb 1 1 1 1\n", encoding="utf-8")
    assert list(rows_of(path)) == ["a", "b"]


@given(rows=st_numpy.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@pytest.mark.parametrize("as_bytes", [False, True])
def test_what_is_written_is_read_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, as_bytes: bool, rows: object
) -> None:
    path = tmp_path_factory.mktemp("vectors") / "file"
    assert isinstance(rows, np.ndarray)
    write_word2vec(path, ["a", "b", "c"], 2, iter([rows[:2], rows[2:]]), as_bytes)
    file = VectorFile(path)
    again = file.parse(list(file.records()))
    assert again.tobytes() == rows.tobytes()


WRONG = {
    "too few numbers": (b"a 1 2 3\nb 1 2\n", "line 2: the word 'b' has 2 numbers, where the first has 3"),
    "no number": (b"a 1 2 3\nb 1 x 3\n", "line 2: the word 'b' has something that is not a number: '1 x 3'"),
    "a header of another dimension": (
        b"2 3\na 1 2\nb 1 2\n",
        "line 2: the word 'a' has 2 numbers, where the first has 3",
    ),
    "nan": (b"2 2\na 1 2\nb nan 2\n", "line 3: the word 'b' has nan as number 1 of its vector"),
    "infinity": (b"2 2\na 1 2\nb 1 1e99\n", "line 3: the word 'b' has inf as number 2 of its vector"),
    "text": (b"once upon a time\n", "line 1 is neither COUNT DIM nor WORD NUMBER"),
    "empty": (b"", "line 1 is neither COUNT DIM"),
    "no dimension": (b"3 0\n", "line 1 tells of vectors of 0 numbers"),
    "cut off": (binary(b"\n")[:-9], "ends at word 5, within a vector, but its first line tells of 5 words"),
    "half a gzip file": (gzip.compress(text_of(header=True))[:-20], "cannot be read: Compressed file ended before"),
    "half an xz file": (lzma.compress(text_of(header=True))[:-20], "cannot be read: Compressed file ended before"),
    "damaged bzip2": (bz2.compress(text_of(header=True))[:40] + b"x" * 90, "cannot be read: Invalid data stream"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told(tmp_path: Path, what: str) -> None:
    content, message = WRONG[what]
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        rows_of(path)
    assert str(error.value).startswith(f"{path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist: check the path"):
        VectorFile(tmp_path / "nowhere")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no ordinary file, and is read more than once: write what comes from"):
        VectorFile(tmp_path / "pipe")


def test_several_spaces_after_a_word_are_one(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("cat  1 2\ndog   3  4\n")
    file = VectorFile(path)
    assert [record.word for record in file.records()] == [b"cat", b"dog"]
    assert file.parse(list(file.records())).tolist() == [[1, 2], [3, 4]]
