"""Greedy and beam search over batches: a beam, what ranks it, what rules forbid, and what sentences demand."""

from dist_s2s.models.search.demands import Demand, Demands, contains
from dist_s2s.models.search.hypothesis import Hypothesis
from dist_s2s.models.search.ranking import Ranking
from dist_s2s.models.search.rules import Rules
from dist_s2s.models.search.searching import beam_search

__all__ = ["Demand", "Demands", "Hypothesis", "Ranking", "Rules", "beam_search", "contains"]
