"""A side of a translation, to ids and back, in memory and on disk."""

from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.side import SideSettings, TextSide
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
