import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.tokenizers import CharacterTokenizer, WhitespaceTokenizer, WordTokenizer, make_tokenizer

NAMES = ["whitespace", "words", "characters"]
any_text = st.text() | st.text(alphabet=" a1.,'\u2019-_￭■▁\t我。é“")
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


@given(any_text)
def test_characters_lose_nothing_but_whitespace(text):
    tokenizer = CharacterTokenizer()
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
    assert all(token.split() == [token] for token in make_tokenizer(name).tokenize(text))


def test_make_tokenizer_returns_the_named_one():
    kinds = [type(make_tokenizer(name)) for name in NAMES]
    assert kinds == [WhitespaceTokenizer, WordTokenizer, CharacterTokenizer]


def test_make_tokenizer_lists_the_names_it_knows():
    with pytest.raises(UserError, match="tokenizer 'bpe' is unknown: choose one of whitespace, words, characters"):
        make_tokenizer("bpe")
