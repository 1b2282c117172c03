"""Words, with punctuation that remembers what it touched."""

import re

import regex

JOINER = "￭"  # U+FFED, on the side of a token where the text has no space
JOINER_LOOKALIKE = "■"  # U+25A0


def word_pattern(letter: str) -> str:
    r"""Return the pattern of a word or number whose characters match the pattern `letter`.

    A word keeps inner apostrophes, hyphens and their like in Hebrew and Catalan (didn't, well-known, צה״ל,
    col·laborar), a number its inner points and commas (10,000). To `regex`, unlike `re`, a letter's marks and joiners
    are part of \w.
    """
    return rf"{letter}+(?:['\u2019\u00b7\u05f3\u05f4-]{letter}+|(?<=\d)[.,]\d{letter}*)*"


# Everything else visible is a token by itself, with its marks; see CharacterTokenizer for what precedes a number.
OTHER = r"\p{Grapheme_Cluster_Break=Prepend}\p{M}*|(?! )\X"
_WORD = word_pattern(r"\w")
_TOKEN = regex.compile(f"(?P<word>{_WORD})|{OTHER}")


class WordTokenizer:
    """Words and numbers are tokens, and so is every other visible character; reversible but for whitespace.

    The idea of OpenNMT's joiner annotation: a punctuation token carries `JOINER` on each side where it
    touches a word, and on its left where it touches other punctuation, so `Hello, world.` becomes `Hello ￭,
    world ￭.` and `detokenize` knows where no space belongs. Whitespace of any kind comes back as one space. A
    joiner in the text itself comes back as `JOINER_LOOKALIKE`.

    A run of letters is a word: scripts written without spaces (Chinese, Thai) need subwords or characters.
    """

    cuts_at_spaces = True

    def tokenize(self, text: str) -> list[str]:
        """Return words, numbers and single other characters, these with their joiners."""
        tokens: list[str] = []
        end = -1  # of the token before
        for match in _TOKEN.finditer(" ".join(text.replace(JOINER, JOINER_LOOKALIKE).split())):
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
