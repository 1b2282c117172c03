"""From a tokenizer's name in the configuration to the tokenizer."""

from typing import Literal, get_args

from dist_s2s import UserError
from dist_s2s.text.tokenizers.characters import CharacterTokenizer
from dist_s2s.text.tokenizers.tokenizer import Tokenizer
from dist_s2s.text.tokenizers.whitespace import WhitespaceTokenizer
from dist_s2s.text.tokenizers.words import WordTokenizer

TokenizerName = Literal["whitespace", "words", "characters"]


def make_tokenizer(name: TokenizerName) -> Tokenizer:
    """Return the tokenizer that a configuration names.

    Raises:
        UserError: there is none of that name.
    """
    match name:
        case "whitespace":
            return WhitespaceTokenizer()
        case "words":
            return WordTokenizer()
        case "characters":
            return CharacterTokenizer()
    raise UserError(f"tokenizer {name!r} is unknown: choose one of {', '.join(get_args(TokenizerName))}")
