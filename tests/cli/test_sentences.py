"""What is read to be translated: when it is handed on, and what it must be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.cli import sentences
from dist_s2s.cli.sentences import read_groups


def read(content: bytes, tmp_path: Path, size: int = 100) -> list[list[str]]:
    (tmp_path / "in.txt").write_bytes(content)
    with open(tmp_path / "in.txt", "rb") as file:
        return list(read_groups(file.fileno(), "in.txt", size, may_pause=False))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.mark.parametrize("at_a_time", [1, 2, 1 << 16])
def test_lines_in_full_groups(at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_BYTES_AT_A_TIME", at_a_time)
    text = "一\n\ntwo\r\n \u2028three\u0085\nfour"
    assert read(text.encode(), tmp_path, size=2) == [["一", ""], ["two", " \u2028three\u0085"], ["four"]]
    assert read(b"", tmp_path) == []
    assert read(b"\n\n", tmp_path) == [["", ""]]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    bom = b"\xef\xbb\xbf"
    assert read(bom + b"one\n" + bom + b"two\n", tmp_path) == [["one", "two"]]  # as after `cat one.txt two.txt`
    assert read(bom, tmp_path) == [[""]]


@pytest.mark.parametrize("line", ["\u200b", "\u200b \u200d\ufeff", "\u200e\t", "\u00ad", "\x07"])
def test_a_line_without_visible_characters_is_empty(line: str, tmp_path: Path) -> None:
    assert read(f"{line}\na{line}\n".encode(), tmp_path) == [["", f"a{line}"]]


def test_a_sender_that_waits_gets_what_it_has_sent(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    groups = read_groups(reading, "stdin", 3, may_pause=True)
    os.write(writing, b"one\ntw")
    assert next(groups) == ["one"]
    os.write(writing, b"o\nthree\nfour\nfive\n")
    assert [next(groups), next(groups)] == [["two", "three", "four"], ["five"]]
    os.write(writing, b"six")
    os.close(writing)
    assert list(groups) == [["six"]]


def test_lines_before_a_fault_are_answered_first(tmp_path: Path) -> None:
    for fault, message in ((b"\xff", "line 3 is not UTF-8"), (b"a\0", "line 3 has a NUL character")):
        one = "one " * 20
        (tmp_path / "in.txt").write_bytes(f"{one}\ntwo\n".encode() + fault + b"\nfour\n")
        with open(tmp_path / "in.txt", "rb") as file:
            groups = read_groups(file.fileno(), "in.txt", 9, may_pause=False)
            assert next(groups) == [one, "two"]
            with pytest.raises(UserError, match=message):
                next(groups)


def test_a_slow_sender_gets_answers_before_a_group_is_full(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never pauses as long as a group may wait for the next line."""
    monkeypatch.setattr(sentences, "_LONGEST_WAIT", 0.0)
    reading, writing = pipe
    groups = read_groups(reading, "stdin", 1000, may_pause=True)
    for text in ("one", "two"):
        os.write(writing, f"{text}\n".encode())
        assert next(groups) == [text]
    os.close(writing)


def test_the_first_groups_are_small_and_long_lines_fill_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_CHARACTERS_AT_A_TIME", 20)
    (tmp_path / "in.txt").write_bytes(b"a\n" * 20 + b"long " * 6 + b"\nb\n")
    with open(tmp_path / "in.txt", "rb") as file:
        groups = read_groups(file.fileno(), "in.txt", 7, may_pause=False, first_size=2)
        assert [len(group) for group in groups] == [2, 4, 7, 7, 1, 1]


def test_what_has_no_lines_is_refused_before_it_fills_the_memory(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of /dev/zero, or a line without end."""
    reading, writing = pipe
    os.write(writing, b"one " * 20 + b"\ntw\0")
    groups = read_groups(reading, "stdin", 9, may_pause=True)
    assert next(groups) == ["one " * 20]
    with pytest.raises(UserError, match="stdin line 2 has a NUL"):
        next(groups)
    monkeypatch.setattr(sentences, "LINE_BYTES", 1 << 20)
    monkeypatch.setattr(sentences, "_BYTES_AT_A_TIME", 1 << 10)
    monkeypatch.setattr(sentences.os, "read", lambda _, size: b"a" * size)
    with pytest.raises(UserError, match="stdin line 1 is longer than 1 MiB, which is no sentence"):
        next(read_groups(reading, "stdin", 9, may_pause=False))
    monkeypatch.undo()
    os.close(writing)


GZIP = b"\x1f\x8b\x08\x00\x00\x00"
FAULTS = {
    "gzip": (GZIP, r"in.txt is compressed; unpack it first: gzip -dc FILE > TEXT"),
    "xz": (b"\xfd7zXZ\x00\x00", "xz -dc FILE"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00", "zstd -dc FILE"),
    "bzip2": (b"BZh91AY&SY\x00", "bzip2 -dc FILE"),
    "zip": (b"PK\x03\x04\x14\x00", "in.txt is a zip archive; unpack it"),
    "UTF-16 with its mark": ("我\n".encode("utf-16"), "in.txt is UTF-16; .* iconv -f UTF-16 -t UTF-8"),
    "UTF-16LE": ("ab\n我们\n".encode("utf-16-le"), "in.txt is UTF-16; .* iconv -f UTF-16LE -t UTF-8"),
    "UTF-16BE, no ASCII but line ends": ("我们\n他\n".encode("utf-16-be"), "iconv -f UTF-16BE"),
    "UTF-16LE, mostly Chinese": ("我们看见一只猫。\n".encode("utf-16-le") * 9, "iconv -f UTF-16LE"),
    "a NUL in UTF-8": ("我们看见一只猫。\n".encode() * 2 + b"a\0\n", "line 3 has a NUL character"),
    "Latin-1": ("café\n".encode("latin-1"), r"line 1 is not UTF-8: byte 4 of the line is 0xe9 .*\); convert it"),
    "mixed": ("我\n二\n".encode() + "三\n".encode("gbk"), "line 3 is not UTF-8: .* the 2 lines before it are, so"),
    "last line": ("我\n".encode() + b"\xff", "line 2 is not UTF-8"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_utf8_text_is_told(fault: str, tmp_path: Path) -> None:
    content, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        read(content, tmp_path)


def test_a_nul_further_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_BYTES_AT_A_TIME", 4)
    with pytest.raises(UserError, match=r"in\.txt line 2 has a NUL character"):
        read(b"one\nt\0o\n", tmp_path)
