"""Long sentences in pieces: nothing is lost, none is too long, and cuts are where a reader would pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s.text.long_sentences import cut_sentence
from dist_s2s.text.side import SideSettings, TextSide

CHARACTERS = TextSide.build(SideSettings("characters"), ["我们看见"])
WORDS = TextSide.build(SideSettings("words"), ["we see"])
TAGGED = TextSide.build(SideSettings("characters", tags=("<2de>", "<2en>")), ["我们"])
BYTES = TextSide.build(SideSettings("bpe"), ["we see a cat"] * 3)  # which spells what it does not know in bytes


@pytest.mark.parametrize(
    ("text", "most", "pieces"),
    [
        ("我们看见。", 5, ["我们看见。"]),
        ("我们看见。", 3, ["我们", "看见。"]),
        ("我们看见猫。你们也看见了。", 8, ["我们看见猫。", "你们也看见了。"]),
        ("我们。你们看见了吗？！我……他们", 9, ["我们。", "你们看见了吗？！", "我……", "他们"]),
        ("「我们看见猫！」你们也看见了吗？", 9, ["「我们看见猫！」", "你们也看见了吗？"]),
        ("我们看见猫，你们也看见了猫。", 9, ["我们看见猫，", "你们也看见了猫。"]),
        ("我们看见3.1415926万只猫", 9, ["我们看见3.14", "15926万只猫"]),
    ],
)
def test_chinese_is_cut_at_its_punctuation(text: str, most: int, pieces: list[str]) -> None:
    assert cut_sentence(text, CHARACTERS, most) == pieces


@pytest.mark.parametrize(
    ("text", "most", "pieces"),
    [
        ('He said: "We see." Then we saw a cat.', 8, ['He said: "We see." ', "Then we saw a cat."]),
        ("So we saw? Mr. smith etc. are it! Yes", 8, ["So we saw? ", "Mr. smith etc. are it! ", "Yes"]),
        ("we see example.com and 3.14, but not them all", 8, ["we see example.com and 3.14, ", "but not them all"]),
        ("we see it and they see us", 4, ["we see it and ", "they see us"]),
        ("we  saw   it", 1, ["we  ", "saw   ", "it"]),
    ],
)
def test_latin_text_is_cut_after_sentences_then_clauses_then_words(text: str, most: int, pieces: list[str]) -> None:
    assert cut_sentence(text, WORDS, most) == pieces


def test_a_cut_far_from_the_middle_does_not_count() -> None:
    text = "Oh, we see it, and they see all of us here"
    assert cut_sentence(text, WORDS, 9) == ["Oh, we see it, ", "and they see all of us here"]


@given(
    st.text(st.sampled_from("我看。，！「」 ab.,!?3\u0301\u200d👩🏽\t-"), max_size=60),
    st.integers(1, 12),
    st.sampled_from([CHARACTERS, WORDS, TAGGED, BYTES]),
)
def test_nothing_is_lost_and_no_piece_is_too_long(text: str, most: int, side: TextSide) -> None:
    pieces = cut_sentence(text, side, most)
    assert "".join(pieces) == text
    for piece in pieces:
        assert len(side.encode(piece)) <= most or len(piece) == 1


def test_each_piece_has_the_tags() -> None:
    pieces = cut_sentence("<2de> <2en>我们。你们。", TAGGED, 5)
    assert pieces == ["<2de> <2en>我们。", "<2de> <2en>你们。"]
    assert [TAGGED.encode(piece)[:2] for piece in pieces] == [[4, 5]] * 2


def test_a_book_in_a_line_is_cut_soon() -> None:
    pieces = cut_sentence("我们看见猫。" * 10_000, CHARACTERS, 30)
    assert max(map(len, pieces)) <= 30
    assert all(piece.endswith("。") for piece in pieces)
