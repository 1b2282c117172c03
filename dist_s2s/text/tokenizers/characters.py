"""Characters, for scripts written without spaces."""

import re

SPACE = "▁"  # U+2581, a space as a token
SPACE_LOOKALIKE = "_"

# Scripts written without spaces: radicals, CJK punctuation, kana, bopomofo, ideographs; their compatibility,
# vertical and full-width forms. Korean is left out because its spaces separate words.
_UNSPACED = "\u2e80-\u312f\u3190-\ua4cf\U00020000-\U0003ffff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff9f\uffe0-\uffe6"
_NEEDLESS_SPACE = re.compile(f"(?<=[{_UNSPACED}]) | (?=[{_UNSPACED}])")


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
