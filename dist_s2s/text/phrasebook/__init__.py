"""The embedded phrasebook: generated Chinese-English sentence pairs, so that the first run needs no data."""

from dist_s2s.text.phrasebook.splits import HELD_OUT_PAIRS, Split, phrasebook, split_sentences

__all__ = ["HELD_OUT_PAIRS", "Split", "phrasebook", "split_sentences"]
