"""From a tokenizer's name in the configuration to the tokenizer."""

from typing import Literal, get_args

from dist_s2s import UserError
from dist_s2s.text.tokenizers.characters import CharacterTokenizer
from dist_s2s.text.tokenizers.chinese_words import JiebaTokenizer, jieba
from dist_s2s.text.tokenizers.subwords import SubwordKind, SubwordTokenizer, sentencepiece
from dist_s2s.text.tokenizers.tokenizer import Tokenizer
from dist_s2s.text.tokenizers.whitespace import WhitespaceTokenizer
from dist_s2s.text.tokenizers.words import WordTokenizer

TokenizerName = Literal["whitespace", "words", "characters", "jieba", SubwordKind]


def make_tokenizer(name: TokenizerName, model: bytes | None = None) -> Tokenizer:
    """Return the tokenizer that a configuration names.

    Args:
        name: the configuration's.
        model: of subwords, which are learnt from text; see `subwords.train`.

    Raises:
        UserError: there is none of that name, or it is not installed.
        ValueError: `model` is not one.
    """
    match name:
        case "whitespace":
            return WhitespaceTokenizer()
        case "words":
            return WordTokenizer()
        case "characters":
            return CharacterTokenizer()
        case "jieba":
            return JiebaTokenizer()
        case "bpe" | "unigram":
            return SubwordTokenizer(model or b"")
    raise UserError(f"tokenizer {name!r} is unknown: choose one of {', '.join(get_args(TokenizerName))}")


def check_installed(*names: TokenizerName) -> None:
    """Raise UserError if what a tokenizer needs is not installed, before a corpus has been read in vain."""
    if "jieba" in names:
        jieba()
    if "bpe" in names or "unigram" in names:
        sentencepiece()
