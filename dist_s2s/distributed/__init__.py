"""The ranks of a run: starting as one of them, and what they tell each other outside of the tables' exchange."""

from dist_s2s.distributed.ranks import Ranks
from dist_s2s.distributed.start import check_torchrun, joined_ranks, leave

__all__ = ["Ranks", "check_torchrun", "joined_ranks", "leave"]
