"""Ways to cut a sentence into tokens, each with its way back to text: a file for each."""

from dist_s2s.text.tokenizers.characters import CharacterTokenizer
from dist_s2s.text.tokenizers.chinese_words import JiebaTokenizer
from dist_s2s.text.tokenizers.make import TokenizerName, check_installed, make_tokenizer
from dist_s2s.text.tokenizers.subwords import SubwordTokenizer
from dist_s2s.text.tokenizers.tokenizer import Tokenizer
from dist_s2s.text.tokenizers.whitespace import WhitespaceTokenizer
from dist_s2s.text.tokenizers.words import WordTokenizer

__all__ = [
    "CharacterTokenizer",
    "JiebaTokenizer",
    "SubwordTokenizer",
    "Tokenizer",
    "TokenizerName",
    "WhitespaceTokenizer",
    "WordTokenizer",
    "check_installed",
    "make_tokenizer",
]
