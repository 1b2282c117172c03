import pytest
import torch

from dist_s2s.translation.search_options import SearchOptions


def test_longest_translation_of_each_sentence() -> None:
    lengths = torch.tensor([1, 7])
    assert SearchOptions().max_lengths(lengths).tolist() == [12, 24]
    assert SearchOptions(length_factor=0, extra_length=3).max_lengths(lengths).tolist() == [3, 3]


@pytest.mark.parametrize("options", [{"beam_size": 0}, {"length_factor": -1}, {"extra_length": 0}])
def test_impossible_searches_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SearchOptions(**options)
