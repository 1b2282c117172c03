"""What a translator does not do twice."""

from pathlib import Path

import pytest

from dist_s2s.distributed import Ranks
from dist_s2s.text.side import TextSide
from dist_s2s.translation.runs.load import load_translator


def test_a_sentence_is_encoded_once(saved_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = load_translator(saved_run, Ranks.alone())
    encoded, sentences = list[str](), ["我们看见猫。", "", "他们看见猫。"]
    encode = TextSide._encode_words

    def count(side: TextSide, words: list[str]) -> list[list[int]]:
        encoded.extend(words)
        return encode(side, words)

    monkeypatch.setattr(TextSide, "_encode_words", count)
    translator.translate(sentences)
    assert sorted(encoded) == sorted(sentences)
