"""Chinese words, as jieba finds them."""

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from types import ModuleType

import regex

from dist_s2s.text.extras import extra
from dist_s2s.text.tokenizers.spaces import join_marked, mark_spaces
from dist_s2s.text.tokenizers.words import OTHER, word_pattern

_OTHER_WORD = word_pattern(r"[\w--\p{Han}]")
_RUN = regex.compile(rf"(?V1)(?P<chinese>\p{{Han}}+)|{_OTHER_WORD}|{OTHER}")


class JiebaTokenizer:
    """Runs of Chinese characters are cut into words by jieba, other text into words and characters.

    Whitespace is treated as by CharacterTokenizer.

    Raises:
        UserError: jieba is not installed.
    """

    cuts_at_spaces = False

    def __init__(self) -> None:
        self._cut = _cut_of(jieba())

    def tokenize(self, text: str) -> list[str]:
        """Return the words, and `SPACE` for whitespace that separates words."""
        tokens: list[str] = []
        for match in _RUN.finditer(mark_spaces(text)):
            run = match.group()
            tokens += self._cut(run) if match.group("chinese") else [run]
        return tokens

    def detokenize(self, tokens: list[str]) -> str:
        """Join without spaces; `SPACE` becomes a space."""
        return join_marked(tokens)


def jieba() -> ModuleType:
    """Import jieba.

    Raises:
        UserError: it is not installed.
    """
    with warnings.catch_warnings(action="ignore"):  # it prefers a module that setuptools no longer wants
        return extra("jieba", "jieba", "cutting Chinese into words")


@cache
def _cut_of(module: ModuleType) -> Callable[[str], Iterable[str]]:
    """Return jieba's function from a sentence to its words, with its own dictionary, which is read once."""
    tokenizer = module.Tokenizer()
    # What its `initialize` does, but that would first read a file in /tmp, which anyone may have put there, by marshal.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    cut: Callable[[str], Iterable[str]] = tokenizer.cut
    return cut
