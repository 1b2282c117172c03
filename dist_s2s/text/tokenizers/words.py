"""Words, with punctuation that remembers what it touched."""

import re

JOINER = "￭"  # U+FFED, on the side of a token where the text has no space
JOINER_LOOKALIKE = "■"  # U+25A0

# A word keeps inner apostrophes and hyphens (didn't, well-known), a number its inner points and commas
# (10,000).
_TOKEN = re.compile(r"(?P<word>\w+(?:['\u2019-]\w+|(?<=\d)[.,]\d\w*)*)|\S")


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
