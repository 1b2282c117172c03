"""What becomes of text before it is cut into tokens."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s.text.normalization import normalize

TRICKY = "aé我নিक्سนि👩🚀👨1. \u0301\u064b\u094d\ufe0f\u200b\u200c\u200d\u200e\u2028\ufeff\x00\x85ﬁ①Ａ"
any_text = st.text() | st.text(alphabet=TRICKY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我爱\u200b自然", "我爱自然"),
        ("我爱\u2028自然\u2029语言", "我爱 自然 语言"),
        ("我爱自然\x85", "我爱自然"),
        ("a\x0bb\x0cc\x1fd\u00a0e\u202ff\u3000g", "a b c d e f g"),
        ("自然\u200e语言\u202c", "自然语言"),
        ("Donau\u00addampf\u2060schiff", "Donaudampfschiff"),
        ("a\ufeffb \ufeff", "ab"),
        ("a\x00b\x08c\x7fd\x9be", "abcde"),
        ("Auf\u200clage 我\u200d们 \u200c", "Auflage 我们"),
        ("cafe\u200b\u0301", "caf\u00e9"),
        ("سلام\u200cها می\u200cروم", "سلام\u200cها می\u200cروم"),
        ("سلام\u200c ها\u200c", "سلام ها"),
        ("سلام \u200dها a \u200ca", "سلام ها a a"),
        ("سلامٌ\u200c\u200cها", "سلامٌ\u200cها"),
        ("क्\u200dष ന്\u200d ක්\u200dර", "क्\u200dष ന്\u200d ක්\u200dර"),
        ("👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 🏴\u200d☠\ufe0f", "👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 🏴\u200d☠\ufe0f"),
        ("x² ﬁ ① Ａ", "x² ﬁ ① Ａ"),
    ],
)
def test_what_becomes_of_each_kind(text: str, expected: str) -> None:
    assert normalize(text, "NFC") == expected


def test_forms() -> None:
    text = "cafe\u0301 x² ﬁ ① Ａ"
    assert normalize(text, "none") == text
    assert normalize(text, "NFC") == "café x² ﬁ ① Ａ"
    assert normalize(text, "NFKC") == "café x2 fi 1 A"


@pytest.mark.parametrize("form", ["none", "NFC", "NFKC"])
@given(any_text)
def test_a_second_call_changes_nothing_and_the_form_is_kept(form, text: str) -> None:
    normalized = normalize(text, form)
    assert normalize(normalized, form) == normalized
    assert form == "none" or unicodedata.is_normalized(form, normalized)


@given(any_text)
def test_nothing_that_is_seen_is_lost(text: str) -> None:
    unseen = ("Cf", "Cc", "Zs", "Zl", "Zp")
    seen = [character for character in text if unicodedata.category(character) not in unseen]
    kept = [character for character in normalize(text, "none") if unicodedata.category(character) not in unseen]
    assert kept == seen
