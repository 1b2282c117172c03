"""The examples, as a user starts them."""

import re

import pytest

from tests.commands import ROOT, run


@pytest.mark.parametrize("ranks", [1, 2])
def test_recommender_learns(ranks: int) -> None:
    shown = run(str(ROOT / "examples" / "recommender.py"), "--steps=150", ranks=ranks).output
    losses = [float(loss) for loss in re.findall(r"^step \d+  loss (\S+)$", shown, re.MULTILINE)]
    assert len(losses) == 3
    # The second guess knows how many clicks there are, but not whose: -p log p - (1 - p) log (1 - p) with p = 0.275.
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.56 < 0.588
