"""What a search finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """A target sentence that a search has found.

    Attributes:
        ids: tokens, without start and end.
        score: what the search ranked it by, in nats: see ``Ranking``. Unless asked otherwise, its log-probability
            divided by its length, the end token counted in both. 0 for no step at all; -inf, without tokens, where the
            rules leave no sentence.
        is_cut: it has reached its maximum length, of at least 1, without an end.
    """

    ids: list[int]
    score: float
    is_cut: bool = False
