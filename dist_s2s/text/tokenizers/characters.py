"""Characters, for scripts written without spaces."""

import regex

from dist_s2s.text.tokenizers.spaces import join_marked, mark_spaces

# What a reader takes for one character: a letter with its marks, an emoji of several parts. A sign that precedes
# numbers in Arabic and other scripts would take its number along, and stands alone.
_CHARACTER = regex.compile(r"\p{Grapheme_Cluster_Break=Prepend}\p{M}*|\X")


class CharacterTokenizer:
    """Every character is a token; the default for Chinese.

    A character is a grapheme cluster (Unicode Standard Annex 29), so that no mark is cut off its letter.

    Whitespace beside a character of a script written without spaces (Chinese, Japanese) is dropped, so that
    spaced and unspaced Chinese give the same tokens; other whitespace becomes the token `SPACE`. A `SPACE` in
    the text itself is read as `SPACE_LOOKALIKE`.
    """

    cuts_at_spaces = False

    def tokenize(self, text: str) -> list[str]:
        """Return the characters, and `SPACE` for whitespace that separates words."""
        characters: list[str] = _CHARACTER.findall(mark_spaces(text))
        return characters

    def detokenize(self, tokens: list[str]) -> str:
        """Join without spaces; `SPACE` becomes a space."""
        return join_marked(tokens)
