"""Words become tokens as their side cuts them, and unknown ones are told with spellings that exist."""

import pytest

from dist_s2s import UserError
from dist_s2s.analysis.words import close_spellings, find_word
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers.spaces import SPACE

SENTENCES = ["the teacher teaches", "Äpfel und Birnen", "the teaching of the cats", "我 爱 自然 语言"] * 3


@pytest.fixture(scope="module")
def side() -> TextSide:
    return TextSide.build(SideSettings("words", tags=("<2en>",)), SENTENCES)


def test_a_word_is_normalized_as_the_side_does(side: TextSide) -> None:
    word = find_word("A\u0308pfel", side, "source")
    assert (word.text, word.tokens, word.explanation) == ("Äpfel", ("Äpfel",), None)
    assert side.vocabulary.tokens[word.ids[0]] == "Äpfel"


def test_close_spellings(side: TextSide) -> None:
    assert close_spellings("teecher", side)[0] == "teacher"
    assert close_spellings("TEACHER", side)[0] == "teacher"
    assert close_spellings("自燃", side) == ["自然"]
    assert close_spellings("qqq", side) == []


def test_a_space_is_spelled_like_nothing() -> None:
    side = TextSide.build(SideSettings("characters"), ["a b"])
    assert SPACE in side.vocabulary
    with pytest.raises(UserError, match="'' is not in the source vocabulary, which has 7 tokens; no token is spelled"):
        find_word("", side, "source")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("birnen", "'birnen' is not in the source vocabulary, which has 18 tokens; close to it are Birnen"),
        ("the dog", "'the dog' is not in the source vocabulary"),
        ("<2en>", "<2en> is a special token of the source vocabulary, not a word"),
        ("<2en> the", "'<2en> the' is not in"),
        ("\u200b", "'\\u200b' is not in the source vocabulary"),
    ],
)
def test_unknown_words(text: str, message: str, side: TextSide) -> None:
    with pytest.raises(UserError) as caught:
        find_word(text, side, "source")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_subwords() -> None:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    side = TextSide.build(SideSettings("bpe", byte_fallback=False), SENTENCES)
    word = find_word("teachings", side, "target")
    assert "".join(word.tokens) == "▁teachings"
    assert len(word.ids) > 1
    assert word.explanation == f"teachings is {len(word.ids)} pieces: {' '.join(word.tokens)}; their mean stands for it"
    token = find_word("▁the", side, "target")
    assert (token.tokens, token.explanation) == (("▁the",), None)
    with pytest.raises(UserError, match="'teachers!' is not in the target vocabulary"):
        find_word("teachers!", side, "target")


def test_a_token_that_is_no_word_can_be_named_as_it_stands() -> None:
    side = TextSide.build(SideSettings("bpe"), SENTENCES)
    tokens = side.vocabulary.tokens[side.vocabulary.num_reserved :]
    for token in tokens:
        assert find_word(token, side, "source", is_token=True).tokens == (token,)
    inner = next(token for token in tokens if token.isalpha() and f"{SPACE}{token}" in tokens)
    assert find_word(inner, side, "source").tokens == (f"{SPACE}{inner}",)
    with pytest.raises(UserError, match="is not in the source vocabulary"):
        find_word("c", TextSide.build(SideSettings("words"), ["a b"]), "source", is_token=True)
