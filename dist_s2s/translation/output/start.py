"""What the output layers have in common: what is never chosen, and where an untrained bias begins."""

from torch import Tensor

from dist_s2s.text.vocabulary import PAD, SOS, UNK

NEVER_CHOSEN = [PAD, SOS, UNK]
NEVER_CHOSEN_BUT_UNKNOWN = [PAD, SOS]  # where unknown words are replaced afterwards


def log_frequencies(counts_V: Tensor) -> Tensor:
    """Return logarithms of the tokens' shares, as if each had occurred once more: float64 [V]."""
    smoothed = counts_V.double() + 1
    return smoothed.log() - smoothed.sum().log()
