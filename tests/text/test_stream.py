"""Reading lines while they are written: what is there, what is yet to come, and what is no stream."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text import stream
from dist_s2s.text.stream import StreamReader, parse_pairs


def test_a_file_that_grows_gives_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"left out\nfirst\nsecond\nthi")
    with StreamReader(path, start=9, wait=60.0) as reader, open(path, "ab", buffering=0) as file:
        assert reader.has(2, 0.0)
        assert not reader.has(3, 0.0)
        assert reader.take(1) == [b"first\n"]
        file.write(b"rd\nfourth")
        assert reader.has(2, 0.0)
        assert reader.take(9) == [b"second\n", b"third\n"]
        assert not reader.has(1, 0.0)
        assert not reader.has_ended
        reader._wait = 0.0
        assert reader.has(1, 0.0)
        assert reader.has_ended
        assert reader.take(1) == [b"fourth"]
        assert reader.take(1) == []


def test_a_pipe_ends_with_its_writers_not_with_their_silence(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with StreamReader(path, start=3, wait=0.0) as reader:
        assert not reader.has(1, 0.0)  # no writer yet
        with open(path, "wb", buffering=0) as writer:
            assert not reader.has(1, 0.0)
            writer.write(b"xx")
            assert not reader.has(1, 0.0)
            writer.write(b"xone\ntwo")
            assert not reader.has(2, 0.0)
        assert reader.has(2, 0.0)
        assert reader.take(5) == [b"one\n", b"two"]


@settings(max_examples=25)
@given(st.binary(max_size=60).map(lambda data: data.replace(b"\x01", b"\n")), st.integers(1, 7))
def test_small_reads_change_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int) -> None:
    path = tmp_path_factory.mktemp("reads") / "data"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, StreamReader(path, 0, 0.0) as reader:
        patch.setattr(stream, "_BYTES", size)
        assert reader.has(1000, 0.0)
        lines = [line + b"\n" for line in data.split(b"\n")]
        lines[-1] = lines[-1][:-1]  # has no end, and is none if it is empty
        assert reader.take(1000) == [line for line in lines if line]
        assert reader.take(1) == []


def test_what_is_no_stream_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        StreamReader(tmp_path / "none", 0, 0.0)
    with pytest.raises(UserError, match="neither a file nor a named pipe"):
        StreamReader(tmp_path, 0, 0.0)
    path = tmp_path / "long"
    path.write_bytes(b"x" * 30)
    with pytest.raises(UserError, match="shorter than the 31 bytes"):
        StreamReader(path, 31, 0.0)
    monkeypatch.setattr(stream, "_LONGEST_LINE", 20)
    with StreamReader(path, 0, 0.0) as reader, pytest.raises(UserError, match="a line of more than 20 bytes"):
        reader.has(1, 0.0)


def test_pairs_of_lines() -> None:
    lines = ["\ufeff猫\tcat\r\n", "a\u2028b\tc\n", "\ufeffd\te"]
    assert parse_pairs([line.encode() for line in lines], "f", 1) == [
        ("猫", "cat"),
        ("a\u2028b", "c"),
        ("\ufeffd", "e"),
    ]
    assert parse_pairs([lines[0].encode()], "f", 2) == [("\ufeff猫", "cat")]
    assert parse_pairs([], "f", 1) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"no tab\n", "line 31 has no tab: expected SOURCE<TAB>TARGET"),
        (b"\n", "line 31 has no tab: expected SOURCE<TAB>TARGET"),
        (b"a\tb\tc\n", "line 31 has 2 tabs: expected SOURCE<TAB>TARGET"),
        (b"a\t \n", "line 31 has an empty target"),
        (b"a\t\xff\n", r"line 31 is not UTF-8: byte 3 of the line is 0xff \(invalid start byte\)"),
    ],
)
def test_the_first_bad_line_is_named_as_in_a_file(line: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"pairs.tsv {message}$"):
        parse_pairs([b"c\td\n", line, b"another\n"], "pairs.tsv", 30)
    with pytest.raises(UserError, match=r"^pairs\.tsv is UTF-16"):
        parse_pairs(["a\tb\n".encode("utf-16")], "pairs.tsv", 1)
