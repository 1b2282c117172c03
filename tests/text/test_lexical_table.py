from collections import defaultdict

import numpy as np
import pytest

from dist_s2s.text import lexical_table
from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.lexical_table import LexicalTable, choose_examples, learn_table
from dist_s2s.text.vocabulary import EOS

RANDOM = np.random.default_rng(1)
EXAMPLES = ExampleList(
    Example(RANDOM.integers(4, 9, size).tolist(), RANDOM.integers(4, 11, 1 + size % 5).tolist())
    for size in RANDOM.integers(1, 7, 23)
)


def model_1(rounds: int) -> dict[tuple[int, int], float]:
    """Expected counts, pair of tokens by pair of tokens."""
    probabilities: dict[tuple[int, int], float] = defaultdict(lambda: 1.0)
    counts: dict[tuple[int, int], float] = {}
    for _ in range(rounds):
        counts, totals = defaultdict(float), defaultdict[int, float](float)
        for example in EXAMPLES:
            for target in example.target:
                origins = [*example.source, EOS]
                total = sum(probabilities[source, target] for source in origins)
                for source in origins:
                    counts[source, target] += probabilities[source, target] / total
                    totals[source] += probabilities[source, target] / total
        probabilities = defaultdict(float, {pair: count / totals[pair[0]] for pair, count in counts.items()})
    return counts


def test_it_is_ibm_model_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for pairs_at_a_time in (1, 50, 1000):
        monkeypatch.setattr(lexical_table, "_PAIRS_AT_A_TIME", pairs_at_a_time)
        table, expected = learn_table(iter(EXAMPLES), 4), model_1(4)
        assert list(zip(table.sources.tolist(), table.targets.tolist(), strict=True)) == sorted(expected)
        np.testing.assert_allclose(table.counts, [expected[pair] for pair in sorted(expected)], rtol=1e-12)


def test_the_likeliest_come_first() -> None:
    table = LexicalTable(np.array([2, 2, 2, 4]), np.array([5, 6, 7, 5]), np.array([0.5, 2.0, 2.0, 0.5]))
    ends, ids = table.likeliest(2, 6)
    assert (ends.tolist(), ids.tolist()) == ([0, 0, 0, 2, 2, 3, 3], [6, 7, 5])
    assert table.most_frequent(2).tolist() == [6, 7]
    assert table.most_frequent(9).tolist() == [6, 7, 5]
    assert table.without_targets([5, 7]).most_frequent(9).tolist() == [6]


def test_too_many_pairs_are_thinned_out_evenly() -> None:
    corpus, fewer = (ExampleList([Example([4, 5], [6])] * count) for count in (10, 2))  # 3 pairs of tokens each
    assert [numbers.tolist() for numbers in choose_examples([corpus, fewer], 1000)] == [list(range(10)), [0, 1]]
    assert [numbers.tolist() for numbers in choose_examples([corpus], 15)] == [[0, 2, 4, 6, 8]]
