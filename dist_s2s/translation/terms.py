"""What users demand of translations: that they begin with given words, and use given terms."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dist_s2s.models import Demand
from dist_s2s.text.normalization import normalize
from dist_s2s.text.side import TextSide

Phrase = tuple[int, ...]


@dataclass(frozen=True)
class Terms:
    """Phrases of the source, each with the one that its translation must contain.

    Attributes:
        by_first: tokens of source phrases and ids of target phrases, by the first token of the former.
    """

    by_first: dict[str, list[tuple[tuple[str, ...], Phrase]]]

    @classmethod
    def of(cls, pairs: Iterable[tuple[Sequence[str], Sequence[int]]]) -> "Terms":
        """Return terms from tokens of source phrases and ids of target phrases, none of them empty."""
        by_first = defaultdict(list)
        for tokens, ids in pairs:
            by_first[tokens[0]].append((tuple(tokens), tuple(ids)))
        return cls(dict(by_first))

    def phrases_for(self, tokens: Sequence[str]) -> tuple[Phrase, ...]:
        """Return the target phrases of all source phrases that occur in a sentence, each once."""
        return tuple(dict.fromkeys(self._occurring(tokens)))

    def _occurring(self, tokens: Sequence[str]) -> Iterator[Phrase]:
        for place, token in enumerate(tokens):
            for phrase, target in self.by_first.get(token, ()):
                if tuple(tokens[place : place + len(phrase)]) == phrase:
                    yield target


def tokens_of(text: str, side: TextSide) -> list[str]:
    """Return the tokens of a sentence, whether the vocabulary has them or not, without tags."""
    return side.tokenizer.tokenize(side.without_tags(normalize(text, side.normalization)))


def unknown_token(text: str, side: TextSide) -> str | None:
    """Return the first token of a text that the vocabulary lacks; None if it has all."""
    return next((token.strip() for token in tokens_of(text, side) if token not in side.vocabulary), None)


def demands_of(
    cut: Sequence[Sequence[str]], prefixes: Sequence[Sequence[int]] | None, terms: Terms | None, source: TextSide
) -> list[list[Demand]]:
    """Return the demands of each sentence's pieces.

    Args:
        cut: sentences, each as its pieces.
        prefixes: target ids that the translation of each sentence begins with, which its first piece does.
        terms: whose target phrases the translation of each piece contains that has the source phrase.
        source: how sentences become tokens.
    """
    begins = [()] * len(cut) if prefixes is None else prefixes
    return [
        [
            Demand(
                () if place else tuple(prefix),
                () if terms is None else terms.phrases_for(tokens_of(piece, source)),
            )
            for place, piece in enumerate(pieces)
        ]
        for pieces, prefix in zip(cut, begins, strict=True)
    ]
