"""Fonts that have the characters of labels."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dist_s2s.text.extras import extra

CJK_PACKAGE = "fonts-noto-cjk"  # of Debian and Ubuntu
_FIRST = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Droid Sans Fallback")
_UNDRAWN = ("Cc", "Cf", "Zs", "Zl", "Zp")


def fonts_for(texts: Iterable[str], purpose: str) -> tuple[list[str], set[str]]:
    """Choose fonts of this machine that have the characters of all texts, as few as that takes.

    Args:
        texts: labels.
        purpose: what they are for, to be named if matplotlib is missing.

    Returns:
        Names for matplotlib's ``font.family``, which takes for each character the first that has it; and the characters
        that no font has.

    Raises:
        UserError: matplotlib is missing.
    """
    load = extra("matplotlib.ft2font", "analysis", purpose).FT2Font
    missing = {ord(each) for text in texts for each in text if unicodedata.category(each) not in _UNDRAWN}
    chosen = [_FIRST[0]]  # matplotlib brings it
    for name, path in _regular_fonts(purpose):
        found = missing & load(path).get_charmap().keys() if missing else set()
        if found:
            chosen.append(name)
            missing -= found
    return list(dict.fromkeys(chosen)), {chr(code) for code in missing}


def _regular_fonts(purpose: str) -> list[tuple[str, str]]:
    """Return names and files of the upright fonts of regular weight, those first that are good for labels."""
    own = Path(extra("matplotlib", "analysis", purpose).get_data_path())
    entries: list[Any] = extra("matplotlib.font_manager", "analysis", purpose).fontManager.ttflist
    fonts = {
        entry.name: entry.fname
        for entry in entries
        if entry.style == "normal"
        and str(entry.weight) in ("400", "normal", "regular")
        # Of its own fonts, those for formulas have other characters than they say, and one has boxes for all.
        and (entry.name.startswith("DejaVu") or own not in Path(entry.fname).parents)
    }
    places = {name: place for place, name in enumerate(_FIRST)}
    return sorted(fonts.items(), key=lambda item: (places.get(item[0], len(places)), item[0]))
