"""The script that a sentence is mostly written in, by the names of its letters in Unicode.

Any two scripts are told apart here, since a sentence in another one than the rest is an outlier. What BLEU needs to
know (`translation.bleu_tokenizer`) is coarser, and counts marks as well.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_LAST_LETTER = 0x323AF  # of the ideographs; beyond it Unicode has no letters
_SENTENCES_AT_A_TIME = 4000
# Names of letters that begin with a word which is no script.
_NO_SCRIPTS = {"FULLWIDTH", "HALFWIDTH", "MODIFIER", "MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "MICRO"}
# Japanese is written in all of these, so a sentence of one does not stand out among those of another.
_IDEOGRAPHS = {"HIRAGANA", "KATAKANA", "BOPOMOFO", "KATAKANA-HIRAGANA"}

# A name in Latin letters may be longer than the rest of a Chinese sentence, although it says less.
_LETTERS_OF_ONE = {"CJK": 3, "HANGUL": 2}


@lru_cache(maxsize=1)
def letters() -> tuple[np.ndarray, list[str]]:
    """Return the number of each code point's script, 0 for what is no letter, and the scripts' names by number."""
    names = {"": 0}
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in range(_LAST_LETTER + 1):
        character = chr(code)
        if not character.isalpha():
            continue
        name = unicodedata.name(character, "").partition(" ")[0]
        name = "CJK" if name in _IDEOGRAPHS else name
        if name and name not in _NO_SCRIPTS and (name in names or len(names) < 256):
            table[code] = names.setdefault(name, len(names))
    return table, list(names)


def main_scripts(sentences: Sequence[str]) -> np.ndarray:
    """Return the number (see `letters`) of the script of most letters of each sentence, 0 if it has none: uint8 [N]."""
    parts = [
        _scripts_of(sentences[begin : begin + _SENTENCES_AT_A_TIME])
        for begin in range(0, len(sentences), _SENTENCES_AT_A_TIME)
    ]
    return np.concatenate([*parts, np.empty(0, dtype=np.uint8)])


def _scripts_of(sentences: Sequence[str]) -> np.ndarray:
    table, names = letters()
    codes = np.frombuffer("".join(sentences).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
    found = table[codes]
    present = np.flatnonzero(np.bincount(found))  # few, of all there are
    column_of = np.zeros(len(names), dtype=np.int64)
    column_of[present] = np.arange(len(present))
    places = np.repeat(np.arange(len(sentences)) * len(present), lengths) + column_of[found]
    counts = np.bincount(places, minlength=len(sentences) * len(present)).reshape(len(sentences), len(present))
    counts *= [_LETTERS_OF_ONE.get(names[number], 1) if number else 0 for number in present]
    scripts: np.ndarray = present[counts.argmax(axis=1)].astype(np.uint8)
    return np.where(counts.any(axis=1), scripts, 0)
