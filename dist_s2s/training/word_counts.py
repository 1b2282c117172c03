"""Words that each rank has counted, added up on all ranks."""

from collections.abc import Mapping
from itertools import repeat

from dist_s2s.distributed import Ranks


def merge_counts(mine: Mapping[str, int], ranks: Ranks) -> dict[str, int]:
    """Return how often each word has occurred on all ranks together, the same on all of them (collective).

    Protocol: every rank sends its words to all, and then their counts (two all_gathers each, of sizes and content);
    each adds up all parts by itself. What a rank receives is bounded by W times the largest part.

    Args:
        mine: counts of this rank's words, which have no whitespace.
    """
    words = [text.split() for text in ranks.gather_texts(" ".join(mine))]
    counts = ranks.gather_numbers(list(mine.values()))
    if len(words) == 1:
        return dict(mine)
    merged: dict[str, int] = {}
    for part, numbers in zip(words, counts, strict=True):
        before = map(merged.get, part, repeat(0))
        merged.update(zip(part, map(int.__add__, before, numbers), strict=True))
    return merged
