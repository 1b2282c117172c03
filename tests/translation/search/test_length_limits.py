import random

import pytest
import torch

from dist_s2s.translation.search.length_limits import fit_length_limits
from dist_s2s.translation.search.options import SearchOptions


def limits_of(lengths: list[tuple[int, int]], sources: list[int]) -> list[int]:
    """The longest translations, EOS not counted, of sources of these lengths, EOS not counted."""
    options = SearchOptions(1, *fit_length_limits(torch.tensor(lengths)))
    return (options.max_lengths(torch.tensor(sources) + 1) - 1).tolist()


def pairs(count: int, low: float, high: float, seed: int = 1) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    sources = [1 + int(rng.gammavariate(3, 4)) for _ in range(count)]
    return [(source, max(1, round(source * rng.uniform(low, high)))) for source in sources]


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.1), (2.5, 6.0), (0.1, 0.3), (1.0, 1.0)])
def test_unseen_pairs_fit_and_little_more_does(low: float, high: float) -> None:
    seen, unseen = pairs(5000, low, high), pairs(2000, low, high, seed=2)
    limits = limits_of(seen, [source for source, _ in unseen])
    assert all(target <= limit for (_, target), limit in zip(unseen, limits, strict=True))
    longest = limits_of(seen, [200])[0]  # longer than any source in training
    assert 200 * high <= longest <= 200 * high * 2.5 + 30


def test_one_word_to_twenty() -> None:
    once, twice = limits_of([(1, 20)] * 40, [1, 2])
    assert 20 <= once <= 60
    assert twice >= 40


def test_misaligned_pairs_do_not_count() -> None:
    seen = pairs(5000, 0.5, 1.1)
    assert limits_of([*seen, (1, 90), (2, 80), (1, 70)], [1, 30]) == limits_of(seen, [1, 30])


def test_long_sources_with_short_targets_need_no_more_than_the_margin() -> None:
    assert limits_of([(50, 1)] * 10, [50])[0] < 20


def test_few_and_many_pairs_are_enough() -> None:
    assert limits_of([(3, 5)], [3])[0] >= 10
    many = torch.tensor(pairs(1000, 0.5, 1.1)).repeat(2100, 1)  # more than are looked at
    factor, extra = fit_length_limits(many)
    assert 0.8 < factor < 2.5
    assert extra < 30
