from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.corpus import Example, ExampleList, encode_pairs, load_pairs
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
