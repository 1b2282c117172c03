"""Translations as lines of text: for readers, as an n-best list, or as JSON."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dist_s2s import counted

if TYPE_CHECKING:
    from dist_s2s.translation.attention import WordAlignment
    from dist_s2s.translation.search.joining import Candidate, Translation

_LINES_NAMED = 5


@dataclass(frozen=True)
class Form:
    """What is written of a translation.

    Attributes:
        is_list: all candidates, a line each, as Moses does; or else the best alone.
        is_json: an object a line.
    """

    is_list: bool
    is_json: bool

    def lines(
        self, number: int, source: str, translation: "Translation", alignments: "list[WordAlignment] | None"
    ) -> str:
        """Return the lines of a translation, each with its end.

        Args:
            number: of its sentence, from 0.
            source: the sentence.
            translation: of it.
            alignments: of each candidate, where words are wanted.
        """
        if self.is_json:
            return json.dumps(self._object(source, translation, alignments), ensure_ascii=False) + "\n"
        found = translation.n_best
        texts = [each.text for each in found] if alignments is None else [each.line for each in alignments]
        if not self.is_list:
            return texts[0] + "\n"
        return "".join(f"{number} ||| {text} ||| {each.score:.6f}\n" for text, each in zip(texts, found, strict=True))

    def _object(
        self, source: str, translation: "Translation", alignments: "list[WordAlignment] | None"
    ) -> dict[str, Any]:
        candidates = [_candidate(each) for each in translation.n_best]
        for candidate, alignment in zip(candidates, alignments or [], strict=False):
            candidate["alignment"] = {
                "source": alignment.source,
                "target": alignment.target,
                "pairs": alignment.alignment,
            }
        best = {"source": source, **candidates[0], "pieces": len(translation.pieces)}
        return best | {"n_best": candidates} if self.is_list else best


def _candidate(candidate: "Candidate") -> dict[str, Any]:
    return {
        "translation": candidate.text,
        "score": round(candidate.score, 6) if math.isfinite(candidate.score) else None,
        "is_cut": candidate.is_cut,
    }


@dataclass
class Counts:
    """What is told of all translations at the end, on stderr.

    Attributes:
        longest: how long a translation may become, in words.
        max_source_tokens: tokens of a line that is translated as a whole.
        lines: so far.
        cut: numbers, from 1, of those whose translation is cut.
        in_pieces: of those that were translated in pieces.
    """

    longest: str
    max_source_tokens: int
    lines: int = 0
    cut: list[int] = field(default_factory=list)
    in_pieces: list[int] = field(default_factory=list)

    def add(self, translations: "Sequence[Translation]") -> None:
        """Count the translations of the next lines."""
        for each in translations:
            self.lines += 1
            if each.is_cut:
                self.cut.append(self.lines)
            if len(each.pieces) > 1:
                self.in_pieces.append(self.lines)

    def tell(self, is_first: bool) -> None:
        """Write a warning for each count that is not 0, if this is the first rank."""
        if is_first and self.in_pieces:
            print(
                f"warning: {len(self.in_pieces):,} of {counted(self.lines, 'line')} {_has(self.in_pieces)} more than "
                f"{counted(self.max_source_tokens, 'token')} and {_was(self.in_pieces)} translated in pieces: "
                f"{named_lines(self.in_pieces)}; see --max_source_tokens",
                file=sys.stderr,
            )
        if is_first and self.cut:
            print(
                f"warning: {len(self.cut):,} of {counted(self.lines, 'translation')} reached the longest length "
                f"({self.longest}) and {_was(self.cut)} cut there: {named_lines(self.cut)}; --length_factor and "
                "--extra_length allow more",
                file=sys.stderr,
            )


def named_lines(lines: Sequence[int]) -> str:
    """Return the numbers of some lines as a message has them: a few, if they are many."""
    return (
        f"line{'s' * (len(lines) != 1)} "
        + ", ".join(map(str, lines[:_LINES_NAMED]))
        + (", ..." if len(lines) > _LINES_NAMED else "")
    )


def _has(lines: Sequence[int]) -> str:
    return "has" if len(lines) == 1 else "have"


def _was(lines: Sequence[int]) -> str:
    return "was" if len(lines) == 1 else "were"
