"""Text that was cut into subwords before, and is put together again."""

import pytest

from dist_s2s.text.segmentation import detect, undo
from dist_s2s.text.side import SideSettings, TextSide

CUT = {
    "subword-nmt": "the tea@@ cher pain@@ t@@ ed a cat .",
    "sentencepiece": "▁the ▁tea cher ▁pain t ed ▁a ▁cat ▁.",
}


@pytest.mark.parametrize("segmentation", CUT)
def test_output_and_references_are_in_whole_words(segmentation) -> None:
    text = CUT[segmentation]
    side = TextSide.build(SideSettings("whitespace"), [text])
    assert side.segmentation == segmentation
    whole = "the teacher painted a cat ."
    assert (side.decode(side.encode(text)), side.readable(text), side.readable(whole)) == (whole, whole, whole)


def test_it_can_be_told_and_switched_off() -> None:
    text = CUT["subword-nmt"]
    plain = TextSide.build(SideSettings("whitespace", segmentation="none"), [text])
    assert plain.decode(plain.encode(text)) == text
    told = TextSide.build(SideSettings("whitespace", segmentation="subword-nmt"), ["no marks"])
    assert told.readable(text) == "the teacher painted a cat ."


@pytest.mark.parametrize("text", ["@@ -1,2 +3,4 @@ a line", "mail me @@ home", "a cat ▁ b", "I @@"])
def test_marks_that_are_text_stay(text: str) -> None:
    others = [f"word{number}" for number in range(200)]
    side = TextSide.build(SideSettings("whitespace"), [text, *others])
    assert (side.segmentation, side.decode(side.encode(text))) == ("none", text)


def test_other_tokenizers_undo_nothing() -> None:
    assert TextSide.build(SideSettings("words"), ["ab@@ cd"]).segmentation == "none"


def test_a_piece_at_the_end_and_detection_without_tokens() -> None:
    assert undo("a b@@", "subword-nmt") == "a b"
    assert detect([]) == "none"
