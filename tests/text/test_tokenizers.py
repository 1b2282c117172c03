import unicodedata
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.tokenizers import (
    CharacterTokenizer,
    JiebaTokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    make_tokenizer,
)

NAMES = ["whitespace", "words", "characters", "jieba"]
with mock.patch("marshal.load") as READ_CACHE, mock.patch("marshal.dump") as WRITTEN_CACHE:
    TOKENIZERS = {name: make_tokenizer(name) for name in NAMES}
any_text = st.text() | st.text(alphabet=" a1.,'\u2019-_￭■▁\t我。é“\u0301\u200c\u200dनि्สี🚀\u0600")
letters_and_marks = st.text(st.characters(categories=["L", "M"]))
any_text |= letters_and_marks
any_tokens = st.lists(st.text(alphabet="a.￭▁我", min_size=1))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, world.", ["Hello", "￭,", "world", "￭."]),
        ("I didn't go.", ["I", "didn't", "go", "￭."]),
        ("It\u2019s well-known", ["It\u2019s", "well-known"]),
        ("3.5 of 10,000.", ["3.5", "of", "10,000", "￭."]),
        ("1,2,3", ["1,2,3"]),
        ("a.b", ["a", "￭.￭", "b"]),
        ('He said: "Hi!"', ["He", "said", "￭:", '"￭', "Hi", "￭!", '￭"']),
        ("Wait...", ["Wait", "￭.", "￭.", "￭."]),
        ("a - b", ["a", "-", "b"]),
        ("dogs' tails", ["dogs", "￭'", "tails"]),
        ("我爱你。", ["我爱你", "￭。"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया", "￭।"]),
        ("தமிழ் வாழ்க!", ["தமிழ்", "வாழ்க", "￭!"]),
        ("cafe\u0301, nai\u0308ve", ["cafe\u0301", "￭,", "nai\u0308ve"]),
        ("سلام\u200cها؟", ["سلام\u200cها", "￭؟"]),
        ("ไทย ที่นี่", ["ไทย", "ที่นี่"]),
        ("שָׁלוֹם, צה״ל.", ["שָׁלוֹם", "￭,", "צה״ל", "￭."]),
        ("👩🏽\u200d🚀👩🏽\u200d🚀!", ["👩🏽\u200d🚀", "￭👩🏽\u200d🚀", "￭!"]),
        ("", []),
        ("  \t ", []),
    ],
)
def test_words(text, tokens):
    assert WordTokenizer().tokenize(text) == tokens


@given(any_text)
@example("￭")
@example("a￭ ￭b")
def test_words_round_trip_exactly_but_for_the_kind_of_whitespace(text):
    tokenizer = WordTokenizer()
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == " ".join(text.split()).replace("￭", "■")


@given(st.characters(categories=["L"]), letters_and_marks)
def test_no_word_of_any_script_is_cut(letter, rest):
    assert WordTokenizer().tokenize(letter + rest) == [letter + rest]


@given(any_text)
def test_no_mark_is_cut_off_its_character(text):
    tokens = CharacterTokenizer().tokenize(text)
    assert not any(unicodedata.category(token[0]) == "Mn" for token in tokens[1:])


@given(any_tokens)
def test_words_leave_no_joiner_in_text(tokens):
    assert "￭" not in WordTokenizer().detokenize(tokens)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我 爱 自然 语言 处理", list("我爱自然语言处理")),
        ("我爱自然语言处理", list("我爱自然语言处理")),
        ("他说: OK 了 。", list("他说:▁OK了。")),
        ("「 a b 」", list("「a▁b」")),
        ("全角\u3000空格", list("全角空格")),
        ("한국 사람", list("한국▁사람")),
        ("x ▁ y", list("x▁_▁y")),
        ("𠀀 𠀁", list("𠀀𠀁")),
        ("cafe\u0301 நி", ["c", "a", "f", "e\u0301", "▁", "நி"]),
        ("👩🏽\u200d🚀🇩🇪", ["👩🏽\u200d🚀", "🇩🇪"]),
        ("", []),
    ],
)
def test_characters(text, tokens):
    assert CharacterTokenizer().tokenize(text) == tokens


@given(st.text(alphabet="我爱。，", min_size=1), st.data())
def test_spaced_and_unspaced_chinese_give_the_same_tokens(text, data):
    spaced = "".join(character + data.draw(st.sampled_from(["", " ", "\u3000", "  "])) for character in text)
    assert CharacterTokenizer().tokenize(spaced) == list(text)


@given(st.text(alphabet="abc ,.é"))
def test_characters_round_trip_text_that_has_spaces(text):
    tokenizer = CharacterTokenizer()
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == " ".join(text.split())


@pytest.mark.parametrize("tokenizer", [TOKENIZERS["characters"], TOKENIZERS["jieba"]], ids=["characters", "jieba"])
@given(any_text)
def test_characters_and_jieba_lose_nothing_but_whitespace(tokenizer, text):
    back = tokenizer.detokenize(tokenizer.tokenize(text))
    assert "".join(back.split()) == "".join(text.replace("▁", "_").split())
    assert tokenizer.tokenize(back) == tokenizer.tokenize(text)


@given(any_text)
def test_whitespace_round_trip(text):
    tokenizer = WhitespaceTokenizer()
    assert tokenizer.tokenize(text) == text.split()
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == " ".join(text.split())


@pytest.mark.parametrize("name", NAMES)
@given(any_text)
def test_tokens_are_never_empty_and_hold_no_whitespace(name, text):
    assert all(token.split() == [token] for token in TOKENIZERS[name].tokenize(text))


def test_make_tokenizer_returns_the_named_one():
    kinds = [type(tokenizer) for tokenizer in TOKENIZERS.values()]
    assert kinds == [WhitespaceTokenizer, WordTokenizer, CharacterTokenizer, JiebaTokenizer]


def test_make_tokenizer_lists_the_names_it_knows():
    with pytest.raises(UserError, match=r"tokenizer 'spaces' is unknown: choose one of whitespace, words, .*unigram"):
        make_tokenizer("spaces")


def test_jieba_finds_words_and_keeps_the_rest_whole():
    tokens = TOKENIZERS["jieba"].tokenize("我来到北京 清华大学, Python 3.5 isn't cafe\u0301")
    assert tokens == ["我", "来到", "北京", "清华大学", ",", "▁", "Python", "▁", "3.5", "▁", "isn't", "▁", "cafe\u0301"]


def test_jieba_reads_and_writes_no_cache_that_could_be_anyones():
    assert not READ_CACHE.called
    assert not WRITTEN_CACHE.called
