"""Words out of the tokens of every kind of tokenizer."""

import pytest

from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers import TokenizerName
from dist_s2s.text.whole_words import count_words, group_ids, words_of

TEXTS = ["I don't know.", "我 爱 low lower, 自然语言。", "newest widest 北京 low", "lower newest"]


def build(tokenizer: TokenizerName, texts: list[str] = TEXTS, **settings: object) -> TextSide:
    if tokenizer == "bpe":
        pytest.importorskip("sentencepiece")
    if tokenizer == "jieba":
        pytest.importorskip("jieba")
    return TextSide.build(SideSettings(tokenizer, **settings), texts)


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ("words", ["我爱", "low", "lower", ",", "自然语言", "。"]),
        ("whitespace", ["我爱", "low", "lower,", "自然语言。"]),
        ("characters", ["我", "爱", "low", "lower,", "自", "然", "语", "言", "。"]),
        ("jieba", ["我", "爱", "low", "lower", ",", "自然语言", "。"]),
    ],
)
def test_words_of_a_text(tokenizer: TokenizerName, expected: list[str]) -> None:
    side = build(tokenizer)
    text = "我爱 low  lower, 自然语言。"
    assert words_of(text, side) == expected
    ids = side.encode(text)
    groups = group_ids(ids, side)
    assert len(groups) == len(expected)
    known = [side.decode([ids[place] for place in group]).strip() for group in groups]
    assert all(word in (whole, "<unk>") for word, whole in zip(known, expected, strict=True))
    assert words_of("", side) == words_of("  ", side) == group_ids([], side) == []


def test_subwords_are_put_together_but_not_those_of_chinese() -> None:
    side = build("bpe")
    ids = side.encode("我爱 low widest, lower 北京")
    words = words_of("我爱 low widest, lower 北京", side)
    assert words == [side.decode([ids[place] for place in group]) for group in group_ids(ids, side)]
    assert "".join(words) == "我爱lowwidest,lower北京"
    assert {"low", "widest,", "lower"} <= set(words)
    assert len(ids) > len(words)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("the tea@@ cher re@@ ad@@ s", ["the", "teacher", "reads"]), ("▁the ▁tea cher ▁s", ["the", "teacher", "s"])],
)
def test_text_that_was_cut_before(line: str, expected: list[str]) -> None:
    side = build("whitespace", [line])
    assert words_of(line, side) == expected
    together = side.readable(line)
    assert "@@" not in together and "▁" not in together  # noqa: PT018 (one thing)
    assert words_of(together, side) == expected
    assert count_words([together] * 2, side) == dict.fromkeys(expected, 2)


def test_tags_are_in_no_word() -> None:
    side = build("words", ["<2en> a b"], tags=("<2en>",))
    assert group_ids(side.encode("<2en> a ?"), side) == [range(1, 2), range(2, 3)]


def test_counts() -> None:
    side = build("bpe")
    counted = count_words(iter(TEXTS), side)
    assert counted == {
        word: sum(words_of(text, side).count(word) for text in TEXTS) for text in TEXTS for word in words_of(text, side)
    }
    assert counted["low"] == counted["lower"] + counted["lower,"] + 0 == 2
