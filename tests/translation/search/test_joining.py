"""Translations of long sentences, joined from those of their pieces."""

import time
from itertools import product

import pytest

from dist_s2s.models import Hypothesis
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.translation.search.joining import join_pieces

ENGLISH = TextSide.build(SideSettings("words"), ["I see it. I see it ."])
CHINESE = TextSide.build(SideSettings("characters"), ["我看见。 ok"])
CUT_CHINESE = TextSide.build(SideSettings("whitespace"), ["我 看见 。"])


def found(side: TextSide, *texts_with_scores: tuple[str, float]) -> list[Hypothesis]:
    return [Hypothesis(side.encode(text), score) for text, score in texts_with_scores]


@pytest.mark.parametrize(
    ("side", "texts", "joined"),
    [
        (ENGLISH, ["I see.", "", "It sees."], None),
        (ENGLISH, ["I see.", "I see it."], "I see. I see it."),
        (CHINESE, ["我看见。", "我看。"], "我看见。我看。"),
        (CHINESE, ["ok", "ok"], "ok ok"),
        (CHINESE, ["ok", "我"], "ok我"),
        (CUT_CHINESE, ["我 看见 。", "我 。"], "我 看见 。 我 。"),
        (ENGLISH, ["", ""], ""),
    ],
)
def test_a_space_stands_between_pieces_where_the_language_has_spaces(
    side: TextSide, texts: list[str], joined: str | None
) -> None:
    each = [found(side, (text, -1.0)) for text in texts]
    expected = " ".join(side.decode(side.encode(text)) for text in texts if text) if joined is None else joined
    assert join_pieces(["x"] * len(texts), each, 1, side).text == expected


def test_n_best_are_the_best_of_all_combinations() -> None:
    pieces = [
        found(ENGLISH, ("I", -0.1), ("I see", -0.25), ("see", -0.9)),
        found(ENGLISH, ("see it .", -0.3), ("it", -0.35)),
        found(ENGLISH, (".", -0.2), ("it it", -0.21), ("see", -2.0)),
    ]
    weights = [2, 4, 2]
    scores = [
        sum(part.score * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)
        for parts in product(*pieces)
    ]
    expected = sorted(scores, reverse=True)[:5]
    joined = join_pieces(["a", "b", "c"], pieces, 5, ENGLISH)
    assert [each.score for each in joined.n_best] == pytest.approx(expected)
    assert joined.text == "I see it . ."
    assert [part.ids for part in joined.n_best[0].parts] == [piece[0].ids for piece in pieces]
    assert len(join_pieces(["a"], pieces[:1], 9, ENGLISH).n_best) == 3


def test_a_book_in_a_line_is_joined_soon() -> None:
    """In time that grows with its pieces, not with their square, which would take minutes."""
    pieces = [[Hypothesis([], -1.0), Hypothesis([], -1.5)]] * 30_000
    started = time.process_time()
    joined = join_pieces(["x"] * len(pieces), pieces, 3, ENGLISH)
    assert time.process_time() - started < 10
    expected = [-1.0, *[-1.0 - 0.5 / len(pieces)] * 2]
    assert [each.score for each in joined.n_best] == pytest.approx(expected, rel=1e-9)
    assert [sum(part.score < -1 for part in each.parts) for each in joined.n_best] == [0, 1, 1]


def test_one_piece_that_is_cut_makes_a_translation_that_is() -> None:
    parts = [[Hypothesis([4], -1.0)], [Hypothesis([5], -1.0, is_cut=True)]]
    assert join_pieces(["a", "b"], parts, 1, ENGLISH).is_cut
    assert not join_pieces(["a"], parts[:1], 1, ENGLISH).is_cut
