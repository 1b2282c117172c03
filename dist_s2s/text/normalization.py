"""Text as all tokenizers meet it: in one Unicode form, without what nobody sees, and with single spaces."""

import re
import unicodedata
from typing import Literal

import regex

Normalization = Literal["none", "NFC", "NFKC"]

# Never shown, and not part of how a word is spelled: controls other than whitespace, soft hyphens, zero-width spaces,
# word joiners and byte-order marks, marks of the direction of writing.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]+"
)
# U+200C and U+200D spell words of scripts that join their letters, and emoji; after other letters they are remnants.
_JOINERS = re.compile("[\u200c\u200d]")
_UNJOINED = (
    r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Hebrew}\p{Thai}\p{Lao}\p{Hangul}\p{Han}\p{Hiragana}\p{Katakana}"  # scripts
)
_STRAY_JOINERS = regex.compile(  # no spaces within the brackets, where they would count
    rf"""(?xV1)
    (?= [\u200c\u200d] )
    (?: (?<= [\p{{Extended_Pictographic}}\p{{Emoji_Modifier}}[\p{{L}}--[{_UNJOINED}]]] \p{{M}}* )
        ( \u200d | \u200c (?= [\u200c\u200d]* [\p{{L}}\p{{M}}] ) )
    )?
    [\u200c\u200d]*
    """
)


def normalize(text: str, form: Normalization) -> str:
    """Return a text in a Unicode form, without invisible characters and with each run of whitespace as one space.

    Whatever the form: whitespace is what ``str.split`` takes for it, line separators (U+2028, U+0085) among it.
    Zero-width joiners and non-joiners stay where they spell a word or an emoji. A second call changes nothing more.

    Args:
        text: a sentence.
        form: NFC makes the same of different spellings of the same character; NFKC moreover folds full-width forms,
            ligatures, and raised or circled digits.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = _in_form(_UNSEEN.sub("", text), form)
    if _JOINERS.search(text):
        text = _in_form(_STRAY_JOINERS.sub(r"\1", text), form)  # a mark may have come beside its letter
    return " ".join(text.split())


def _in_form(text: str, form: Normalization) -> str:
    return text if form == "none" else unicodedata.normalize(form, text)
