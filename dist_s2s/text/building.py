"""Both sides of a translation, built from sentence pairs."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal, Protocol

from dist_s2s import UserError
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.tokenizers.subwords import MOST_SENTENCES

SideName = Literal["source", "target", "joint"]


class CountedPairs(Protocol):
    """Sentence pairs that can be gone through more than once, in memory or not."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, str]]: ...


def build_sides(source: SideSettings, target: SideSettings, pairs: CountedPairs) -> tuple[TextSide, TextSide]:
    """Build both sides from sentence pairs, as `build_side`."""
    if source.joint:
        both = build_side("joint", source, pairs)
        return both, TextSide.of(target, both.tokenizer, both.vocabulary)
    return build_side("source", source, pairs), build_side("target", target, pairs)


def build_side(name: SideName, settings: SideSettings, pairs: CountedPairs) -> TextSide:
    """Build a side from sentence pairs; subwords from every n-th pair, if there are more than half a million sentences.

    Raises:
        UserError: as `TextSide.build`; the side is named.
    """
    columns = {"source": [0], "target": [1], "joint": [0, 1]}[name]
    step = 1
    if settings.tokenizer in ("bpe", "unigram"):
        step = max(1, -(-len(pairs) * len(columns) // MOST_SENTENCES))
    spread = (pair[column] for column in columns for pair in islice(pairs, 0, None, step))
    try:
        return TextSide.build(settings, spread)
    except UserError as error:
        raise UserError(f"{'joint vocabulary' if name == 'joint' else f'{name} side'}: {error}") from None
