"""A side of a translation, to ids and back, in memory and on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.building import build_sides
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers import TokenizerName
from dist_s2s.text.vocabulary import EOS, UNK

SENTENCES = ["Hello, world.", "Hello, hello, Anna."]


def test_text_comes_back_from_ids() -> None:
    side = TextSide.build(SideSettings("words"), SENTENCES)
    assert [side.decode(side.encode(text)) for text in SENTENCES] == SENTENCES
    assert side.decode([*side.encode("world"), EOS, 4]) == "world"
    assert side.encode("nobody") == [UNK]


def test_the_vocabulary_is_of_the_sides_own_tokens_and_limits() -> None:
    side = TextSide.build(SideSettings("characters", max_size=5), ["你好", "你们"])
    assert side.vocabulary.tokens[4:] == ("你",)
    assert TextSide.build(SideSettings("characters", min_frequency=2), ["你好", "你们"]).vocabulary.tokens[4:] == (
        "你",
    )


def test_saved_and_loaded_under_its_name(tmp_path: Path) -> None:
    side = TextSide.build(SideSettings("words"), SENTENCES)
    [(name, content)] = side.files("target").items()
    assert name == "target_vocabulary.txt"
    (tmp_path / name).write_bytes(content)
    loaded = TextSide.load(tmp_path, "target", SideSettings("words"))
    assert loaded.vocabulary.tokens == side.vocabulary.tokens
    with pytest.raises(UserError, match="source_vocabulary"):
        TextSide.load(tmp_path, "source", SideSettings("words"))


@pytest.mark.parametrize("tokenizer", ["whitespace", "words", "characters"])
def test_a_declared_tag_is_one_token_at_the_beginning_of_a_source_and_nowhere_else(tokenizer) -> None:
    settings = SideSettings(tokenizer, tags=("<2en>", "<2en>>", ">>de<<"))
    side = TextSide.build(settings, ["<2en> a b", ">>de<< b", "a <2en> b < 2 e n >"])
    text = side.encode("a b")
    assert side.encode("<2en> a b") == side.encode(" \u200b<2en>a b") == [4, *text]
    assert side.encode(">>de<< <2en>> a b") == [6, 5, *text]
    assert not {4, 5, 6} & set(side.encode("<2fr> a b"))
    assert not {4, 5, 6} & set(side.encode("a <2en> b"))
    assert side.decode([4, *text, 6]) == "a b"


def test_a_joint_vocabulary_gives_both_sides_the_same_ids_and_only_the_source_its_tags() -> None:
    source = SideSettings("words", tags=("<2en>",), joint=True)
    target = SideSettings("words", tags=("<2en>",), reads_tags=False, joint=True)
    left, right = build_sides(source, target, [("<2en> ein Haus", "a house")])
    assert left.vocabulary.tokens[4:] == right.vocabulary.tokens[4:] == ("<2en>", "Haus", "a", "ein", "house")
    assert left.encode("a Haus") == right.encode("a Haus")
    assert (left.encode("<2en> a"), right.encode("<2en> a")) == ([4, 6], [UNK, UNK, UNK, 6])


def test_one_form_on_the_way_in_and_out() -> None:
    side = TextSide.build(SideSettings("words"), ["cafe\u0301"])
    assert side.vocabulary.tokens[4:] == ("café",)
    assert side.decode(side.encode("cafe\u0301")) == side.readable("cafe\u0301 ") == "café"
    raw = TextSide.build(SideSettings("words", normalization="none"), ["cafe\u0301"])
    assert raw.encode("café") == [UNK]
    assert raw.decode(raw.encode("cafe\u0301")) == raw.readable("cafe\u0301") == "cafe\u0301"


def test_encode_all_is_encode_of_each() -> None:
    side = TextSide.build(SideSettings("words", tags=("<2en>",)), SENTENCES)
    texts = [*SENTENCES, "", "<2en> world", "<2en>"]
    assert side.encode_all(texts) == list(map(side.encode, texts))
    assert side.encode_all([]) == []


def test_a_side_that_cannot_be_built_is_named() -> None:
    settings = SideSettings("words", min_frequency=3)
    with pytest.raises(UserError, match=r"target side: no token occurs min_frequency = 3 times: .*'b', occurs 1 time;"):
        build_sides(SideSettings("words"), settings, [("a", "b"), ("a", "c")])


class StoredPairs:
    """Pairs that are read anew each time that somebody goes through them."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs, self.readings = pairs, 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.readings += 1
        return iter(self.pairs)


@pytest.mark.parametrize("tokenizer", ["words", "bpe"])
def test_pairs_are_read_once_for_each_side(tokenizer: TokenizerName) -> None:
    settings = SideSettings(tokenizer)
    stored = StoredPairs([(f"a{number} b c", f"d{number} e f g") for number in range(50)])
    sides = build_sides(settings, settings, stored)
    assert stored.readings == 2
    assert [side.vocabulary.tokens for side in sides] == [
        side.vocabulary.tokens for side in build_sides(settings, settings, stored.pairs)
    ]
