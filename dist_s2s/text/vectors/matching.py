"""Which word of a vector file is which token of a vocabulary."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from dist_s2s.text.tokenizers.spaces import SPACE
from dist_s2s.text.tokenizers.words import JOINER
from dist_s2s.text.vocabulary import SPECIALS

EXACT, NORMALIZED, OTHER_CASE = range(3)  # how a token was found; a lower number is better
_MISSING_SHOWN = 10


@dataclass
class Coverage:
    """What a vector file has of a vocabulary.

    Attributes:
        num_tokens: tokens of the vocabulary, without the special ones.
        num_words: words of the file.
        found: how each covered token was found, by id.
        missing: the first tokens that were not, which are the most frequent.
        repeated: words that are wanted and occur more than once: the word, and where it is again. The first counts.
    """

    num_tokens: int
    num_words: int = 0
    found: dict[int, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report, a line for each thing to know."""
        kinds = [sum(kind == wanted for kind in self.found.values()) for wanted in (NORMALIZED, OTHER_CASE)]
        others = [
            f"{count:,} {how}" for count, how in zip(kinds, ("normalized", "in another case"), strict=True) if count
        ]
        share = len(self.found) / max(1, self.num_tokens)
        text = f"{len(self.found):,} of {self.num_tokens:,} tokens ({share:.1%}) are among its {self.num_words:,} words"
        lines = [text + (f", {' and '.join(others)}" if others else "")]
        if self.missing:
            lines.append(f"missing, the most frequent first: {' '.join(self.missing[:_MISSING_SHOWN])}")
        if self.repeated:
            word, place = self.repeated[0]
            lines.append(f"{len(self.repeated):,} words occur again, such as {word!r} in {place}; the first one counts")
        return lines


class Matcher:
    """Finds the tokens that a word stands for: the same word, else one that differs in its normal form or its case.

    What tokenizers put on a token to say where it touches others is no part of the word.

    Args:
        tokens: a vocabulary, in id order.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._ids: dict[bytes, list[int]] = {}
        self._folded: dict[str, list[int]] = {}
        for index, token in enumerate(tokens[len(SPECIALS) :], start=len(SPECIALS)):
            word = token.strip(JOINER).removeprefix(SPACE) or token
            self._ids.setdefault(word.encode(), []).append(index)
            self._folded.setdefault(_fold(word), []).append(index)
        self._seen: set[bytes] = set()
        self.coverage = Coverage(len(tokens) - len(SPECIALS))

    def match(self, word: bytes, place: str) -> list[int]:
        """Return the ids of the tokens whose best word so far this is. Every word of the file goes through here."""
        coverage = self.coverage
        coverage.num_words += 1
        exact = self._ids.get(word)
        if exact is not None:
            if word in self._seen:
                coverage.repeated.append((word.decode(), place))
                return []
            self._seen.add(word)
            return [index for index in exact if self._is_better(index, EXACT)]
        text = word.decode("utf-8", "replace")
        ids = self._folded.get(_fold(text))
        if ids is None:
            return []
        return [index for index in ids if self._is_better(index, self._difference(text, index))]

    def end(self) -> Coverage:
        """Return the coverage, once all words of the file have been matched."""
        numbered = enumerate(self._tokens[len(SPECIALS) :], start=len(SPECIALS))
        self.coverage.missing = [token for index, token in numbered if index not in self.coverage.found]
        return self.coverage

    def _is_better(self, index: int, kind: int) -> bool:
        if self.coverage.found.get(index, OTHER_CASE + 1) <= kind:
            return False
        self.coverage.found[index] = kind
        return True

    def _difference(self, text: str, index: int) -> int:
        word = self._tokens[index].strip(JOINER).removeprefix(SPACE)
        return NORMALIZED if _normal(text) == _normal(word) else OTHER_CASE


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _fold(text: str) -> str:
    return text.lower() if text.isascii() else _normal(_normal(text).casefold())
