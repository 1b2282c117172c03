from dataclasses import replace

import pytest
import torch

from dist_s2s.config import Config
from dist_s2s.models import Ranking, Rules
from dist_s2s.translation.search.options import SearchOptions


def test_longest_translation_of_each_sentence() -> None:
    lengths = torch.tensor([1, 7])
    assert SearchOptions(length_factor=1.5, extra_length=10).max_lengths(lengths).tolist() == [12, 21]
    assert SearchOptions(length_factor=0, extra_length=3).max_lengths(lengths).tolist() == [3, 3]
    assert SearchOptions(length_factor=1.5, extra_length=10).longest == "1.5 · source tokens + 10"


def test_limits_are_those_of_the_run_unless_others_are_given() -> None:
    before_there_were_any = Config()
    assert SearchOptions.of(before_there_were_any, 3) == SearchOptions(beam_size=3)
    config = Config.model_validate({"translation": {"length_factor": "2.5", "extra_length": "7"}})
    options = SearchOptions.of(config)
    assert options == SearchOptions(1, 2.5, 7)
    assert options.with_limits(None, None) == options
    assert options.with_limits(0.0, None) == SearchOptions(1, 0.0, 7)
    assert options.with_limits(None, 9) == SearchOptions(1, 2.5, 9)

    assert replace(options, min_length=2, length_penalty=0.6).rules == Rules(min_length=2)
    assert replace(options, length_penalty=0.6).ranking == Ranking(0.6, 0.0)


IMPOSSIBLE = [{name: -1} for name in ("length_factor", "length_penalty", "coverage_penalty", "min_length")]


@pytest.mark.parametrize("options", [{"beam_size": 0}, {"extra_length": 0}, {"no_repeat_ngram": -1}, *IMPOSSIBLE])
def test_impossible_searches_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SearchOptions(**options)


def test_limits_without_meaning_stay_limits() -> None:
    lengths = torch.tensor([0, 3])
    for options in (SearchOptions(length_factor=1e19), SearchOptions(extra_length=10**20)):
        assert (options.max_lengths(lengths) >= 50).all()
        assert options.limits_of([5])[0] > 1 << 30
