"""Pairs from text files: what is read, and what is said of a line that is no pair."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.inputs import read_inputs


@pytest.fixture
def corpus(tmp_path: Path):
    def write(data: bytes) -> str:
        path = tmp_path / "corpus.tsv"
        path.write_bytes(data)
        return str(path)

    return write


@pytest.mark.parametrize(
    "text",
    [
        "你好\thello\n谢谢\tthanks\n",
        "你好\thello\n谢谢\tthanks",
        "\ufeff你好\thello\n谢谢\tthanks\n",
        "你好\thello\r\n谢谢\tthanks\r\n",
        "你好\thello\n谢谢\tthanks\n\n  \n\r\n",
    ],
    ids=["plain", "no last line end", "byte-order mark", "crlf", "blank lines at the end"],
)
def test_read_inputs(corpus, text):
    assert read_inputs(corpus(text.encode())) == [("你好", "hello"), ("谢谢", "thanks")]


sentences = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\ufeff"))


@given(st.lists(st.tuples(*[sentences.filter(str.strip)] * 2), min_size=1))
def test_sentences_come_back_as_written_whatever_unicode_line_breaks_they_hold(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("corpus") / "corpus.tsv"
    path.write_bytes("".join(f"{source}\t{target}\n" for source, target in pairs).encode())
    assert read_inputs(str(path)) == pairs


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"corpus\.tsv is empty: it has no pair"),
        (b" \n\n", r"corpus\.tsv is empty: it has no pair"),
        (b"a\tb\na b\n", r"corpus\.tsv line 2 has no tab: expected SOURCE<TAB>TARGET"),
        (b"a\tb\n\nc\td\n", r"corpus\.tsv line 2 has no tab"),
        (b"a\tb\tc\n", r"corpus\.tsv has 3 columns: say which two are source and target, as in --columns 1,2"),
        (b"a\tb\n \td\n", r"corpus\.tsv line 2 has an empty source"),
        (b"a\tb\nc\t\r\ne\tf\n", r"corpus\.tsv line 2 has an empty target"),
        (b"a\tb\nc\t\xffd\n", r"corpus\.tsv line 2 is not UTF-8: byte 3 of the line is 0xff"),
        (b"\xe4\xbd\ta\n", r"corpus\.tsv line 1 is not UTF-8: byte 1 of the line is 0xe4"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_line(corpus, data, message):
    with pytest.raises(UserError, match=message):
        read_inputs(corpus(data))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nothing\.tsv does not exist"):
        read_inputs(str(tmp_path / "nothing.tsv"))


def test_a_directory_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"is a directory without .* in it: name a file in it"):
        read_inputs(str(tmp_path))


def test_lines_that_are_no_pair_are_counted_by_kind(corpus):
    data = b"a\tb\n" * 5 + b"c\t\n" * 5 + b"no tab\n" + b"a\tb\tc\td\n" * 2 + b"\xb0\xa1\tg\n" + b"a\tb\n" * 3
    with pytest.raises(UserError) as caught:
        read_inputs(corpus(data))
    lines = [line.rpartition("corpus.tsv ")[2] for line in str(caught.value).splitlines()]
    assert lines == [
        "line 6 has an empty target; so do 4 more (line 7, line 8, …)",
        "line 11 has no tab: expected SOURCE<TAB>TARGET",
        "line 12 has 3 tabs: expected SOURCE<TAB>TARGET; so do 1 more (line 13)",
        "line 14 is not UTF-8: byte 1 of the line is 0xb0 (invalid start byte)",
        "9 in all: mend them, or give --data.skip_bad_lines true to leave them out",
    ]
    assert read_inputs(corpus(data), skip_bad_lines=True) == [("a", "b")] * 8


def test_a_file_full_of_bad_lines_is_not_read_to_its_end(corpus):
    with pytest.raises(UserError, match="there may be more: reading ended here"):
        read_inputs(corpus(b"a\tb\n" + b"\t\n" * 100_000 + b"a\tb\n"))
    with pytest.raises(UserError, match="no line of it is a pair"):
        read_inputs(corpus(b"x\n"), skip_bad_lines=True)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa\tb\n".encode("utf-16-le"),
        "你\tb\n".encode("utf-16"),
        "hello\tyou\n".encode("utf-16-be"),
        "我们看见\t你一\n".encode("utf-16-le"),
    ],
)
def test_utf_16_is_named(corpus, text):
    with pytest.raises(UserError, match=r"corpus\.tsv is UTF-16, not UTF-8: convert it"):
        read_inputs(corpus(text))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(corpus, monkeypatch):
    monkeypatch.setattr("dist_s2s.text.inputs.lines.LINE_BYTES", 100)
    with pytest.raises(UserError, match="the line from 1 on is longer than"):
        read_inputs(corpus(b"a" * 1000))


def test_blocks_are_cut_at_line_ends(corpus, monkeypatch):
    pairs = [(f"{number}" * (number % 7 + 1), "x") for number in range(200)]
    monkeypatch.setattr("dist_s2s.text.inputs.lines.BLOCK_BYTES", 64)
    data = "".join(f"{source}\t{target}\n" for source, target in pairs).encode()
    assert read_inputs(corpus(data + b"\n" * 200)) == pairs
    with pytest.raises(UserError, match="line 201 has no tab"):
        read_inputs(corpus(data + b"bad\n"))
