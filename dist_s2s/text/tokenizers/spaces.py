"""Spaces as tokens, where text needs them."""

import re

SPACE = "▁"  # U+2581, a space as a token
SPACE_LOOKALIKE = "_"

# Scripts written without spaces: radicals, CJK punctuation, kana, bopomofo, ideographs; their compatibility,
# vertical and full-width forms. Korean is left out because its spaces separate words, and Thai and its like because
# theirs separate phrases. So these are not the scripts that BLEU cuts into characters (translation.bleu_tokenizer),
# which are letters alone.
_UNSPACED = "\u2e80-\u312f\u3190-\ua4cf\U00020000-\U0003ffff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff9f\uffe0-\uffe6"
_UNSPACED_CHARACTER = re.compile(f"[{_UNSPACED}]")
_NEEDLESS_SPACE = re.compile(f"(?<=[{_UNSPACED}]) | (?=[{_UNSPACED}])")


def is_unspaced(character: str) -> bool:
    """Tell whether a character is of a script written without spaces."""
    return _UNSPACED_CHARACTER.match(character) is not None


def mark_spaces(text: str) -> str:
    """Return the text with `SPACE` for each run of whitespace, but none beside a script written without spaces.

    A `SPACE` in the text itself becomes `SPACE_LOOKALIKE`, lest it come back as a space.
    """
    text = " ".join(text.replace(SPACE, SPACE_LOOKALIKE).split())
    return _NEEDLESS_SPACE.sub("", text).replace(" ", SPACE)


def join_marked(tokens: list[str]) -> str:
    """Join tokens of marked text; `SPACE` becomes a space."""
    return "".join(tokens).replace(SPACE, " ")
