"""Subwords: learnt alike each time, lossless, and in the numbers of their vocabulary."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_s2s import UserError
from dist_s2s.text.building import build_sides
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers.subwords import SubwordTokenizer, train
from dist_s2s.text.vocabulary import SPECIALS, UNK

SENTENCES = ["I saw a cat .", "the teacher liked the moon .", "the teacher saw the train ."] * 20 + ["我看见猫。"]
SETTINGS = {kind: SideSettings(kind, tags=("<2en>", "<2de>")) for kind in ("bpe", "unigram")}
SIDES = {kind: TextSide.build(settings, SENTENCES) for kind, settings in SETTINGS.items()}
BOTH = pytest.mark.parametrize("kind", SIDES)


@BOTH
@given(st.text() | st.text(alphabet="the a.▁_<>0x41@\t我é\u0301नि🚀\u200d"))
def test_any_text_comes_back(kind: str, text: str) -> None:
    side = SIDES[kind]
    assert side.decode(side.encode(text)) == side.readable(text.replace("▁", "_"))


@BOTH
@given(st.lists(st.integers(0, 300)), st.lists(st.text(min_size=1)))
def test_any_tokens_are_joined(kind: str, ids: list[int], tokens: list[str]) -> None:
    side = SIDES[kind]
    assert "<2en>" not in side.decode([number % len(side.vocabulary) for number in ids])
    side.tokenizer.detokenize(tokens)


@BOTH
@pytest.mark.parametrize("text", ["<eos> a </s> <unk>", "<0x41>", "x <2en> y", "▅ a\u2028b"])
def test_what_spells_a_special_token_is_text(kind: str, text: str) -> None:
    side = SIDES[kind]
    ids = side.encode(text)
    assert min(ids) >= len(SPECIALS) + 2
    assert side.decode(ids) == " ".join(text.split())


@BOTH
def test_frequent_words_are_tokens_and_ids_are_the_vocabularys(kind: str) -> None:
    side = SIDES[kind]
    tokens = side.tokenizer.tokenize("the teacher saw")
    assert tokens[0].startswith("▁")
    assert len(tokens) < len("the teacher saw")
    assert side.encode("the teacher saw") == side.vocabulary.encode(tokens)


@BOTH
def test_learnt_alike_each_time(kind: str) -> None:
    again = TextSide.build(SETTINGS[kind], SENTENCES)
    assert again.files("source") == SIDES[kind].files("source")


@BOTH
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    side = SIDES[kind]
    files = side.files("target")
    assert list(files) == ["target_vocabulary.txt", "target_subwords.model"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for loaded in (
        TextSide.load(tmp_path, "target", SETTINGS[kind]),
        TextSide.from_files(files, "target", SETTINGS[kind]),
    ):
        assert loaded.vocabulary.tokens == side.vocabulary.tokens
        assert loaded.encode("<2de> the moon 我") == side.encode("<2de> the moon 我")


def test_the_size_is_a_limit_that_fits_or_is_refused() -> None:
    settings = SETTINGS["bpe"]
    assert len(TextSide.build(replace(settings, max_size=290), SENTENCES).vocabulary) == 290
    assert len(TextSide.build(replace(settings, max_size=32_000), SENTENCES).vocabulary) < 400
    with pytest.raises(UserError, match=r"the vocabulary size is 100, but subwords need at least 2\d\d for .* 256 by"):
        TextSide.build(replace(settings, max_size=100), SENTENCES)


@pytest.mark.parametrize("byte_fallback", [True, False])
@BOTH
def test_the_least_size_is_what_sentencepiece_needs(kind, byte_fallback: bool) -> None:
    with pytest.raises(UserError, match="at least") as refused:
        train(SENTENCES, kind, 5, byte_fallback, [])
    least = int(str(refused.value).split("at least ")[1].split()[0])
    assert len(SubwordTokenizer(train(SENTENCES, kind, least, byte_fallback, [])).pieces) == least


def test_without_byte_fallback_rare_characters_are_unknown() -> None:
    side = TextSide.build(replace(SETTINGS["bpe"], byte_fallback=False), SENTENCES)
    assert side.encode("猫") == [side.vocabulary.tokens.index("▁"), side.vocabulary.tokens.index("猫")]
    assert side.encode("狗")[1:] == [UNK]
    assert not any(token.startswith("<0x") for token in side.vocabulary.tokens)


def test_text_without_a_sentence_is_refused() -> None:
    with pytest.raises(UserError, match="cannot learn subwords from these 0 sentences"):
        TextSide.build(SETTINGS["bpe"], [])


@pytest.mark.parametrize("content", [b"", b"no model", SIDES["bpe"].files("source")["source_subwords.model"][:500]])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    for name, good in SIDES["bpe"].files("source").items():
        (tmp_path / name).write_bytes(good)
    (tmp_path / "source_subwords.model").write_bytes(content)
    with pytest.raises(UserError, match=r"source_subwords\.model is not a SentencePiece model; put back"):
        TextSide.load(tmp_path, "source", SETTINGS["bpe"])


def test_a_missing_model_or_that_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    files = SIDES["bpe"].files("source")
    (tmp_path / "source_vocabulary.txt").write_bytes(files["source_vocabulary.txt"])
    with pytest.raises(UserError, match=r"source_subwords\.model cannot be read: No such file"):
        TextSide.load(tmp_path, "source", SETTINGS["bpe"])
    other = train([*SENTENCES, "quite other words"] * 9, "bpe", None, True, ["<2en>", "<2de>"])
    (tmp_path / "source_subwords.model").write_bytes(other)
    with pytest.raises(UserError, match=r"do not belong together: they differ from line 2\d\d of the vocabulary"):
        TextSide.load(tmp_path, "source", SETTINGS["bpe"])


def test_more_pairs_than_needed_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.text.building.MOST_SENTENCES", 61)
    settings = SideSettings("bpe", joint=True)
    source, target = build_sides(settings, settings, [(text, text) for text in SENTENCES for _ in range(2)])
    assert source.vocabulary.tokens == target.vocabulary.tokens
    assert source.files("x") == TextSide.build(settings, SENTENCES[::2] * 2).files("x")


def test_a_missing_package_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sentencepiece", "jieba"):
        monkeypatch.setitem(sys.modules, module, None)
    for tokenizer, extra in (("bpe", "subwords"), ("jieba", "jieba")):
        with pytest.raises(UserError, match=rf"needs? the extra \"{extra}\": pip install 'dist-s2s\[{extra}\]'"):
            TextSide.build(SideSettings(tokenizer), SENTENCES)
