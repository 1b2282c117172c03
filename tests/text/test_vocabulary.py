from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.vocabulary import EOS, PAD, SOS, SPECIALS, UNK, Vocabulary

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda word: word.split() == [word])


def test_build_sorts_by_falling_frequency_then_by_token():
    vocabulary = Vocabulary.build([["b", "c", "a"], ["b", "a"], ["d"]])
    assert vocabulary.tokens == (*SPECIALS, "a", "b", "c", "d")


def test_build_keeps_the_most_frequent_within_max_size_specials_included():
    vocabulary = Vocabulary.build([["x", "x", "y", "y", "y", "z"]], max_size=6)
    assert vocabulary.tokens == (*SPECIALS, "y", "x")
    assert len(vocabulary) == 6


def test_build_drops_what_is_rarer_than_min_frequency():
    assert Vocabulary.build([["x", "x", "y"]], min_frequency=2).tokens == (*SPECIALS, "x")


def test_a_vocabulary_of_specials_alone_is_refused_with_the_largest_frequency() -> None:
    with pytest.raises(UserError, match=r"no token occurs min_frequency = 1,000 times: .* 'b', occurs 3 times; lower"):
        Vocabulary.build([["b", "a", "b"], ["b", "<eos>"]], min_frequency=1000)


def test_tags_follow_the_specials_and_belong_to_no_text() -> None:
    vocabulary = Vocabulary.build([["a", "<2en>", "<2en>"]], max_size=6, tags=["<2en>"])
    assert vocabulary.tokens == (*SPECIALS, "<2en>", "a")
    assert vocabulary.encode(["<2en>", "a"]) == [UNK, 5]
    assert vocabulary.decode([SOS, 4, 5, UNK]) == ["a", "<unk>"]
    assert "<2en>" not in vocabulary
    with pytest.raises(ValueError, match=r"line 5 holds '<2en>'; a vocabulary begins with .* <unk> <2de>"):
        Vocabulary(vocabulary.tokens, tags=["<2de>"])


def test_build_refuses_a_size_without_room_for_the_specials():
    with pytest.raises(ValueError, match=r"max_size must be at least 4 .* got 3"):
        Vocabulary.build([["a"]], max_size=3)


def test_unknown_words_become_unk():
    vocabulary = Vocabulary.build([["a"]])
    assert vocabulary.encode(["a", "b", "a"]) == [4, UNK, 4]
    assert "a" in vocabulary
    assert "b" not in vocabulary


def test_text_that_spells_a_special_token_is_an_unknown_word():
    vocabulary = Vocabulary.build([["<eos>", "<eos>", "a"]])
    assert vocabulary.tokens == (*SPECIALS, "a")
    assert vocabulary.encode(SPECIALS) == [UNK] * 4
    assert "<eos>" not in vocabulary


def test_decode_stops_at_eos_and_skips_pad_and_sos():
    vocabulary = Vocabulary.build([["a", "b"]])
    assert vocabulary.decode([SOS, 4, PAD, UNK, 5, EOS, 4]) == ["a", "<unk>", "b"]


@pytest.mark.parametrize("index", [-1, 5])
def test_decode_refuses_an_id_outside_the_vocabulary(index):
    with pytest.raises(ValueError, match=f"id {index} is outside the vocabulary: ids run from 0 to 4"):
        Vocabulary.build([["a"]]).decode([4, index])


@given(st.lists(st.lists(words)))
def test_encode_and_decode_are_inverse_on_known_words(sentences):
    vocabulary = Vocabulary.build(sentences)
    for sentence in sentences:
        expected = ["<unk>" if word in SPECIALS else word for word in sentence]
        assert vocabulary.decode(vocabulary.encode(sentence)) == expected


@given(st.lists(st.lists(words)))
def test_a_saved_vocabulary_loads_unchanged(tmp_path_factory, sentences):
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.txt"
    vocabulary = Vocabulary.build(sentences)
    path.write_bytes(vocabulary.to_text().encode())
    assert Vocabulary.load(path).tokens == vocabulary.tokens


def test_a_saved_vocabulary_is_plain_text_one_token_a_line():
    text = Vocabulary.build([["爱", "a\u2028b"]]).to_text()
    assert text == "<pad>\n<sos>\n<eos>\n<unk>\na\u2028b\n爱\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", "v.txt is not a vocabulary: line 1 holds 'a'; a vocabulary begins with <pad> <sos> <eos> <unk>"),
        ("<pad>\n<sos>\n<eos>\n", "v.txt is not a vocabulary: line 4 is missing; a vocabulary begins with <pad>"),
        (
            "<pad>\n<sos>\n<eos>\n<unk>\na\nb\na\n",
            "v.txt is not a vocabulary: line 7 repeats the token 'a' of line 5",
        ),
        ("<pad>\n<sos>\n<eos>\n<unk>\n<eos>\n", "line 5 repeats the token '<eos>' of line 3"),
        ("<pad>\n<sos>\n<eos>\n<unk>\n\nb\n", "line 5 holds ''"),
        ("", "v.txt is empty"),
    ],
)
def test_load_names_what_is_wrong(tmp_path: Path, text, message):
    (tmp_path / "v.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Vocabulary.load(tmp_path / "v.txt")


def test_load_names_a_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"v\.txt does not exist"):
        Vocabulary.load(tmp_path / "v.txt")


@pytest.mark.parametrize("token", ["", " ", "a\nb", "a\r"])
def test_a_token_that_does_not_fit_on_a_line_is_refused(token):
    with pytest.raises(ValueError, match="line 5 holds"):
        Vocabulary([*SPECIALS, token])
