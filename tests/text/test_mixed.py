"""Another domain's pairs among those of an epoch."""

from collections import Counter

import pytest
import torch

from dist_s2s.text.corpus import Example, ExampleList
from dist_s2s.text.mixed import MixedCorpus, of_epoch

OWN = ExampleList(Example([number], [number] * 2) for number in range(8))
OTHER = ExampleList(Example([100 + number], [7] * number) for number in range(5))


@pytest.mark.parametrize(("share", "others"), [(0.2, 2), (0.5, 8), (0.75, 24), (0.01, 1)])
def test_a_share_of_each_epoch_is_the_other_domain(share: float, others: int) -> None:
    mixed = MixedCorpus(OWN, OTHER, share)
    assert len(mixed) == 13
    counts: Counter[int] = Counter()
    for epoch in range(5):
        part = of_epoch(mixed, 3, epoch)
        sources = [part[number].source[0] for number in range(len(part))]
        assert sources[:8] == list(range(8))
        assert len(sources) == 8 + others
        assert part.lengths.tolist() == [[1, len(part[number].target)] for number in range(len(part))]
        counts.update(sources[8:])
        assert max(counts.values()) - min(counts[100 + number] for number in range(5)) <= 1  # all have their turn
    again = of_epoch(mixed, 3, 4)
    assert [again[number] for number in range(len(again))] == [part[number] for number in range(len(part))]
    if others > 1:
        assert not torch.equal(mixed.numbers(4, 4), mixed.numbers(3, 4))


def test_a_corpus_alone_is_its_own_epoch() -> None:
    assert of_epoch(OWN, 3, 1) is OWN
