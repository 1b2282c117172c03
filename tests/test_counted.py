"""Numbers with what they count."""

import pytest

from dist_s2s import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 ranks"), (1, "1 rank"), (2, "2 ranks"), (1000, "1,000 ranks")])
def test_a_number_with_its_noun(number: int, said: str) -> None:
    assert counted(number, "rank") == said


def test_other_plurals() -> None:
    assert [counted(number, "line is", "lines are") for number in (1, 2)] == ["1 line is", "2 lines are"]
