"""Many texts at once are cut as they are one by one."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dist_s2s.text.normalization import Normalization, normalize
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers import TokenizerName

SENTENCES = ["the cat saw the moon .", "a teacher saw a cat .", "我看见 猫。"] * 20
NAMES: list[TokenizerName] = ["whitespace", "words", "characters", "jieba", "bpe", "unigram"]
SIDES = {name: TextSide.build(SideSettings(name, tags=("<2en>",)), SENTENCES) for name in NAMES}
texts = st.lists(
    st.text()
    | st.text(
        alphabet="the cat.,'\u2019\u00b4-_￭▁\t我。é\u0301\u200c\u200dनि\u0600\ufb01\x00\u0085\u2028<2n>", max_size=30
    )
)


def one_by_one(side: TextSide, text: str) -> list[str]:
    return side.tokenizer.tokenize(normalize(text, side.normalization))


@pytest.mark.parametrize("form", ["none", "NFC", "NFKC"])
@pytest.mark.parametrize("name", NAMES[:-1])  # unigram weighs whole sentences, and may round otherwise
@given(texts)
@example([])
@example(["", "a a", " \u00b4 a\u0301", "a\u200d \u200da"])
def test_ids_are_those_of_each_text_by_itself(name: TokenizerName, form: Normalization, texts: list[str]) -> None:
    built = SIDES[name]
    side = TextSide(built.tokenizer, built.vocabulary, form, reads_tags=False)
    assert side.encode_all(texts) == [side.vocabulary.encode(one_by_one(side, text)) for text in texts]
    assert side.encode_all(texts) == [side.encode(text) for text in texts]


@pytest.mark.parametrize("name", NAMES[:4])
@given(texts, st.randoms())
def test_lengths_and_counts_are_those_of_each_text_by_itself(name: TokenizerName, texts: list[str], random) -> None:
    side = SIDES[name]
    tokens = [one_by_one(side, text) for text in texts]
    chosen = np.array([random.random() < 0.5 for _ in texts], dtype=bool)
    cut = side.cut(texts)
    assert cut.lengths().tolist() == list(map(len, tokens))
    assert cut.counts() == Counter(chain.from_iterable(tokens))
    assert cut.counts(chosen) == Counter(chain.from_iterable(tokens[number] for number in np.flatnonzero(chosen)))


@pytest.mark.parametrize("name", NAMES)
@given(texts)
def test_tags_stand_first(name: TokenizerName, texts: list[str]) -> None:
    side = SIDES[name]
    with_tags = side.encode_all([f"<2en>{text}" for text in texts])
    assert with_tags == [[4, *ids] for ids in side.encode_all(texts)]
    assert with_tags == [side.encode(f"<2en>{text}") for text in texts]


@pytest.mark.parametrize("name", NAMES)
def test_words_met_before_are_not_cut_again(name: TokenizerName) -> None:
    side = SIDES[name]
    known: dict[str, list[int]] = {}
    first = side.encode_flat(SENTENCES, known)
    words = len(known)
    again = side.encode_flat(SENTENCES[::-1], known)
    assert len(known) == words
    assert (first[0].sum(), first[1].tolist()) == (again[0].sum(), again[1].tolist()[::-1])
