"""Which word of a vector file becomes which token's vector."""

from dist_s2s.text.vectors.matching import Matcher
from dist_s2s.text.vocabulary import SPECIALS

TOKENS = [*SPECIALS, "the", "￭,", ",", "Paris", "ﬁne", "▁cat", "zebra", "Straße", "qqq"]


def ids(matcher: Matcher, *words: str) -> dict[str, list[str]]:
    return {word: [TOKENS[i] for i in matcher.match(word.encode(), f"line {n}")] for n, word in enumerate(words, 1)}


def test_words_are_found_exactly_or_by_their_form_or_case() -> None:
    matcher = Matcher(TOKENS)
    found = ids(matcher, "the", ",", "paris", "fine", "cat", "PARIS", "Paris", "STRASSE", "<pad>")
    assert found == {
        "the": ["the"],
        ",": ["￭,", ","],
        "paris": ["Paris"],
        "fine": ["ﬁne"],
        "cat": ["▁cat"],
        "PARIS": [],  # no better than the first
        "Paris": ["Paris"],  # better
        "STRASSE": ["Straße"],
        "<pad>": [],
    }
    coverage = matcher.end()
    assert coverage.missing == ["zebra", "qqq"]
    assert coverage.lines() == [
        "7 of 9 tokens (77.8%) are among its 9 words, 1 normalized and 1 in another case",
        "missing, the most frequent first: zebra qqq",
    ]


def test_an_exact_word_keeps_its_place() -> None:
    matcher = Matcher(TOKENS)
    assert ids(matcher, "zebra", "Zebra") == {"zebra": ["zebra"], "Zebra": []}


def test_a_repeated_word_is_told() -> None:
    matcher = Matcher(TOKENS)
    assert matcher.match(b"the", "line 1")
    assert matcher.match(b"the", "line 7") == []
    assert matcher.end().lines()[-1] == "1 words occur again, such as 'the' in line 7; the first one counts"


def test_bytes_that_are_no_text_match_nothing() -> None:
    assert Matcher(TOKENS).match(b"\xff\xfe", "word 1") == []
