"""Which word of a vector file becomes which token's vector."""

from dist_s2s.text.vectors.matching import Coverage, Matcher, Matches
from dist_s2s.text.vocabulary import SPECIALS

TOKENS = [*SPECIALS, "the", "￭,", ",", "Paris", "ﬁne", "▁cat", "zebra", "Straße", "qqq"]


def ids(coverage: Coverage, *words: str, first: int = 1) -> dict[str, list[str]]:
    """The tokens that get each word's vector, of a file that goes on with these words."""
    matches = Matcher(TOKENS).match(word.encode() for word in words)
    counts = coverage.take(Matches(matches.words + first, matches.ids, matches.kinds))
    coverage.num_words += len(words)
    found: dict[str, list[str]] = {word: [] for word in words}
    for place, index in zip(matches.words[counts], matches.ids[counts], strict=True):
        found[words[place]].append(TOKENS[index])
    return {word: sorted(tokens) for word, tokens in found.items()}


def place(number: int) -> str:
    return f"line {number}"


def test_words_are_found_exactly_or_by_their_form_or_case() -> None:
    coverage = Coverage(TOKENS)
    assert ids(coverage, "the", ",", "paris", "fine", "cat", "STRASSE", "<pad>") == {
        "the": ["the"],
        ",": [",", "￭,"],
        "paris": ["Paris"],
        "fine": ["ﬁne"],
        "cat": ["▁cat"],
        "STRASSE": ["Straße"],
        "<pad>": [],
    }
    assert ids(coverage, "PARIS") == {"PARIS": []}  # no better than the first
    assert ids(coverage, "Paris") == {"Paris": ["Paris"]}  # better
    assert coverage.missing == ["zebra", "qqq"]
    assert coverage.lines(place) == [
        "7 of 9 tokens (77.8%) are among its 9 words, 1 normalized and 1 in another case",
        "missing, the most frequent first: zebra qqq",
    ]


def test_of_words_that_come_together_the_best_counts_and_of_equals_the_first() -> None:
    coverage = Coverage(TOKENS)
    found = ids(coverage, "PARIS", "paris", "Paris", "pARIS", "zEBRA", "ZEBRA")
    assert {word for word, tokens in found.items() if tokens} == {"Paris", "zEBRA"}


def test_an_exact_word_keeps_its_place() -> None:
    assert ids(Coverage(TOKENS), "zebra", "Zebra") == {"zebra": ["zebra"], "Zebra": []}


def test_repeated_words_are_told() -> None:
    coverage = Coverage(TOKENS)
    assert ids(coverage, "the", ",")["the"]
    assert not any(ids(coverage, "the", ",", first=7).values())
    assert coverage.lines(place)[-1] == "2 words occur again, such as 'the' in line 7; the first one counts"
    ids(coverage, "qqq", "zebra", first=9)
    matches = Matcher(TOKENS).match([b"qqq", b"qqq"])
    coverage.take(matches)
    assert coverage.num_repeated == 4


def test_bytes_that_are_no_text_match_nothing() -> None:
    assert not len(Matcher(TOKENS).match([b"\xff\xfe"]).ids)
