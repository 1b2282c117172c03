from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.corpus import Example, ExampleList, encode_pairs, load_pairs, read_pairs
from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import CharacterTokenizer, WhitespaceTokenizer
from dist_s2s.text.vocabulary import UNK, Vocabulary


@pytest.fixture
def corpus(tmp_path: Path):
    def write(data: bytes) -> Path:
        path = tmp_path / "corpus.tsv"
        path.write_bytes(data)
        return path

    return write


def encode(pairs, max_length=None):
    source = Vocabulary.build([["你", "好"]])
    target = Vocabulary.build([["hello", "you"]])
    sides = TextSide(CharacterTokenizer(), source), TextSide(WhitespaceTokenizer(), target)
    return encode_pairs(pairs, *sides, max_length)


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
def test_read_pairs(corpus, text):
    assert read_pairs(corpus(text.encode())) == [("你好", "hello"), ("谢谢", "thanks")]


sentences = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\ufeff"))


@given(st.lists(st.tuples(*[sentences.filter(str.strip)] * 2), min_size=1))
def test_sentences_come_back_as_written_whatever_unicode_line_breaks_they_hold(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("corpus") / "corpus.tsv"
    path.write_bytes("".join(f"{source}\t{target}\n" for source, target in pairs).encode())
    assert read_pairs(path) == pairs


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"corpus\.tsv is empty: it has 0 bytes"),
        (b" \n\n", r"corpus\.tsv is empty: it has 3 bytes and no text"),
        (b"a\tb\na b\n", r"corpus\.tsv line 2 has no tab: expected SOURCE<TAB>TARGET"),
        (b"a\tb\n\nc\td\n", r"corpus\.tsv line 2 has no tab"),
        (b"a\tb\tc\n", r"corpus\.tsv line 1 has 2 tabs: expected SOURCE<TAB>TARGET"),
        (b"a\tb\n \td\n", r"corpus\.tsv line 2 has an empty source"),
        (b"a\tb\nc\t\r\ne\tf\n", r"corpus\.tsv line 2 has an empty target"),
        (b"a\tb\nc\t\xffd\n", r"corpus\.tsv line 2 is not UTF-8: byte 3 of the line is 0xff"),
        (b"\xe4\xbd\ta\n", r"corpus\.tsv line 1 is not UTF-8: byte 1 of the line is 0xe4"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_line(corpus, data, message):
    with pytest.raises(UserError, match=message):
        read_pairs(corpus(data))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nothing\.tsv does not exist"):
        read_pairs(tmp_path / "nothing.tsv")


def test_a_directory_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is a directory: name a file in it"):
        read_pairs(tmp_path)


def test_load_pairs_reads_a_path(corpus):
    assert load_pairs(str(corpus(b"a\tb\n")), "test") == [("a", "b")]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_load_pairs_knows_the_phrasebook(split):
    from dist_s2s.text.phrasebook import phrasebook

    assert load_pairs("phrasebook", split) == phrasebook(split)


def test_encode_pairs_gives_ids_without_sos_and_eos():
    examples, dropped = encode([("你好", "hello you"), ("你们", "hello all")])
    assert examples == [Example([4, 5], [4, 5]), Example([4, UNK], [4, UNK])]
    assert dropped == 0


@pytest.mark.parametrize(
    ("pair", "kept"),
    [
        (("你好", "you"), True),
        (("你好你", "you"), False),
        (("你", "you you you"), False),
        (("你好", "a b"), True),
    ],
)
def test_a_side_longer_than_max_length_is_dropped_and_counted(pair, kept):
    examples, dropped = encode([("好", "hello"), pair], max_length=2)
    assert (len(examples), dropped) == ((2, 0) if kept else (1, 1))


def test_without_a_limit_only_empty_sides_are_dropped():
    examples, dropped = encode([("你" * 1000, "you"), (" ", "you"), ("你", "")])
    assert ([len(example.source) for example in examples], dropped) == ([1000], 2)


def test_dropping_every_pair_is_an_error():
    with pytest.raises(UserError, match=r"no sentence pair is left: all 2 .* max_length = 1 tokens"):
        encode([("你好", "you"), ("你好", "hello")], max_length=1)


def test_no_pairs_give_no_examples():
    assert encode([]) == ([], 0)


def test_lengths_of_a_corpus_in_memory() -> None:
    corpus = ExampleList([Example([4, 5], [6]), Example([7], [])])
    assert corpus.lengths.tolist() == [[2, 1], [1, 0]]
    assert ExampleList().lengths.shape == (0, 2)
