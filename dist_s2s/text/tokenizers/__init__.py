"""Ways to cut a sentence into tokens, each with its way back to text: a file for each."""

from dist_s2s.text.tokenizers.characters import CharacterTokenizer
from dist_s2s.text.tokenizers.make import TokenizerName, make_tokenizer
from dist_s2s.text.tokenizers.tokenizer import Tokenizer
from dist_s2s.text.tokenizers.whitespace import WhitespaceTokenizer
from dist_s2s.text.tokenizers.words import WordTokenizer

__all__ = [
    "CharacterTokenizer",
    "Tokenizer",
    "TokenizerName",
    "WhitespaceTokenizer",
    "WordTokenizer",
    "make_tokenizer",
]
