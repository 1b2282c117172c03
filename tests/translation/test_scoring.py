import pytest

from dist_s2s.translation.scoring import Row, bleu_score, corpus_scores

REFERENCES = ["the cat sat on the mat .", "it was raining when we arrived ."]


def rows(hypotheses: list[str]) -> list[Row]:
    return [("", reference, hypothesis) for reference, hypothesis in zip(REFERENCES, hypotheses, strict=True)]


def test_equal_texts_score_one_hundred() -> None:
    scores = corpus_scores(rows(REFERENCES))
    assert (scores.bleu, scores.chrf) == pytest.approx((100.0, 100.0))
    assert bleu_score(rows(REFERENCES)) == scores.bleu


def test_bleu_is_that_of_the_formula() -> None:
    """One wrong word: precisions 13/14, 10/12, 8/10 and 6/8, and no brevity penalty."""
    hypotheses = ["the cat sat on the rug .", REFERENCES[1]]
    expected = 100 * (13 / 14 * 10 / 12 * 8 / 10 * 6 / 8) ** 0.25
    assert bleu_score(rows(hypotheses)) == pytest.approx(expected)


def test_order_matters_and_empty_translations_are_scored() -> None:
    assert bleu_score(rows(REFERENCES[::-1])) < 20
    empty = corpus_scores(rows(["", ""]))
    assert (empty.bleu, empty.chrf) == (0.0, 0.0)


def test_signatures_say_which_bleu_and_chrf() -> None:
    scores = corpus_scores(rows(REFERENCES))
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in scores.bleu_signature
    assert "nc:6|nw:0" in scores.chrf_signature
