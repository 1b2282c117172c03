"""Text that another program has cut into subwords, put together again for readers and scores."""

import re
from collections.abc import Sequence
from typing import Literal

Segmentation = Literal["none", "subword-nmt", "sentencepiece"]

_SUBWORD_NMT = re.compile(r"@@(?: |$)")
_SPACE = "▁"  # U+2581
_SHARE = 0.01  # of the tokens of a vocabulary; other text has next to none of either


def detect(tokens: Sequence[str]) -> Segmentation:
    """Tell from the tokens of a vocabulary by which marks its text was cut, if it was."""
    continued = sum(token.endswith("@@") and token[:-2].isalnum() for token in tokens)
    begun = sum(token.startswith(_SPACE) and token != _SPACE for token in tokens)
    if max(continued, begun) < max(1, _SHARE * len(tokens)):
        return "none"
    return "subword-nmt" if continued >= begun else "sentencepiece"


def undo(text: str, segmentation: Segmentation) -> str:
    """Return the text before it was cut: ``the tea@@ cher`` and ``▁the ▁tea cher`` are ``the teacher``."""
    match segmentation:
        case "none":
            return text
        case "subword-nmt":
            return _SUBWORD_NMT.sub("", text)
        case "sentencepiece":
            if _SPACE not in text:  # a reference that was not cut
                return text
            return " ".join(text.replace(" ", "").replace(_SPACE, " ").split())
