"""Three ways to cut a sentence into tokens, each with its way back to text."""

import re
from typing import Literal, Protocol, get_args

from dist_s2s.errors import UserError

TokenizerName = Literal["whitespace", "words", "characters"]

JOINER = "￭"  # U+FFED, on the side of a token where the text has no space
JOINER_LOOKALIKE = "■"  # U+25A0
SPACE = "▁"  # U+2581, a space as a token
SPACE_LOOKALIKE = "_"

# A word keeps inner apostrophes and hyphens (didn't, well-known), a number its inner points and commas
# (10,000).
_TOKEN = re.compile(r"(?P<word>\w+(?:['\u2019-]\w+|(?<=\d)[.,]\d\w*)*)|\S")

# Scripts written without spaces: radicals, CJK punctuation, kana, bopomofo, ideographs; their compatibility,
# vertical and full-width forms. Korean is left out because its spaces separate words.
_UNSPACED = "\u2e80-\u312f\u3190-\ua4cf\U00020000-\U0003ffff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff9f\uffe0-\uffe6"
_NEEDLESS_SPACE = re.compile(f"(?<=[{_UNSPACED}]) | (?=[{_UNSPACED}])")


class Tokenizer(Protocol):
    """Cuts text into tokens, which are never empty and never contain whitespace, and joins tokens to text."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of `text`, in order."""

    def detokenize(self, tokens: list[str]) -> str:
        """Return the text that `tokens` stand for; any sequence of tokens is accepted."""


class WhitespaceTokenizer:
    """Tokens are what whitespace separates: for text that is tokenized already."""

    def tokenize(self, text: str) -> list[str]:
        """Split at whitespace."""
        return text.split()

    def detokenize(self, tokens: list[str]) -> str:
        """Join with single spaces."""
        return " ".join(tokens)


class WordTokenizer:
    """Words and numbers are tokens, and so is every other visible character; reversible but for whitespace.

    The idea of OpenNMT's joiner annotation: a punctuation token carries `JOINER` on each side where it
    touches a word, and on its left where it touches other punctuation, so `Hello, world.` becomes `Hello ￭,
    world ￭.` and `detokenize` knows where no space belongs. Whitespace of any kind comes back as one space. A
    joiner in the text itself comes back as `JOINER_LOOKALIKE`.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return words, numbers and single other characters, these with their joiners."""
        tokens: list[str] = []
        end = -1  # of the token before
        for match in _TOKEN.finditer(text.replace(JOINER, JOINER_LOOKALIKE)):
            token, is_word = match.group(), match.group("word") is not None
            if match.start() == end:
                if is_word:
                    tokens[-1] += JOINER  # two words never touch, so the token before is punctuation
                else:
                    token = JOINER + token
            tokens.append(token)
            end = match.end()
        return tokens

    def detokenize(self, tokens: list[str]) -> str:
        """Join with single spaces, but with none where there is a joiner."""
        return re.sub(f" ?{JOINER} ?", "", " ".join(tokens))


class CharacterTokenizer:
    """Every character is a token; the default for Chinese. No Unicode normalization is applied.

    Whitespace beside a character of a script written without spaces (Chinese, Japanese) is dropped, so that
    spaced and unspaced Chinese give the same tokens; other whitespace becomes the token `SPACE`. A `SPACE` in
    the text itself is read as `SPACE_LOOKALIKE`, lest it come back as a space.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the characters, and `SPACE` for whitespace that separates words."""
        text = " ".join(text.replace(SPACE, SPACE_LOOKALIKE).split())
        return list(_NEEDLESS_SPACE.sub("", text).replace(" ", SPACE))

    def detokenize(self, tokens: list[str]) -> str:
        """Join without spaces; `SPACE` becomes a space."""
        return "".join(tokens).replace(SPACE, " ")


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
