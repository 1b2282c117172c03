"""Where source phrases occur in a sentence, and which tokens target phrases become."""

from types import SimpleNamespace
from typing import cast

import pytest

from dist_s2s.text.side import TextSide
from dist_s2s.text.tokenizers import Tokenizer, make_tokenizer
from dist_s2s.text.vocabulary import SPECIALS, Vocabulary
from dist_s2s.translation.search.terms import Terms, phrase_ids, plain


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a part of the arts", ()),
        ("„art“ (art)", ((7,),)),
        ("ART", ()),
        ("state of the art", ((8, 9), (7,))),
        ("state  of\tthe art", ((8, 9), (7,))),
        ("我爱art和北京人", ((7,), (5,))),
        ("", ()),
    ],
)
def test_phrases_occur_as_whole_words_of_scripts_with_spaces(text: str, found: tuple[tuple[int, ...], ...]) -> None:
    side = TextSide(make_tokenizer("words"), Vocabulary([*SPECIALS]))
    terms = Terms.of([("art", [7]), ("state of the art", [8, 9]), ("北京", [5])])
    assert terms.phrases_for(plain(text, side)) == found


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("北京", ["▁北京"], ["北京"]),
        ("北京", ["▁", "北", "京"], ["北", "京"]),
        ("上海", ["▁上海"], ["▁上海"]),  # as the vocabulary has no other
        ("the cat", ["▁the", "▁cat"], ["▁the", "▁cat"]),
    ],
)
def test_a_phrase_without_spaces_has_none_before_it(text: str, tokens: list[str], expected: list[str]) -> None:
    vocabulary = Vocabulary([*SPECIALS, "▁北京", "北京", "▁", "北", "京", "▁上海", "▁the", "▁cat"])
    side = TextSide(cast(Tokenizer, SimpleNamespace(tokenize=lambda _: list(tokens))), vocabulary)
    assert phrase_ids(text, side) == vocabulary.encode(expected)
