import sys

import pytest
from sacrebleu.metrics.bleu import BLEU

from dist_s2s import UserError
from dist_s2s.config.training import BleuTokenizer
from dist_s2s.translation.scores.scoring import Row, Scorer

REFERENCES = ["the cat sat on the mat .", "it was raining when we arrived ."]


def rows(hypotheses: list[str], references: list[str] = REFERENCES) -> list[Row]:
    return [("", reference, hypothesis) for reference, hypothesis in zip(references, hypotheses, strict=True)]


def english() -> Scorer:
    return Scorer("auto", REFERENCES)


def test_equal_texts_score_one_hundred() -> None:
    scores = english().all_scores(rows(REFERENCES))
    assert (scores["bleu"], scores["chrf"], scores["ter"]) == pytest.approx((100.0, 100.0, 0.0))
    assert english().scores(rows(REFERENCES))["bleu"] == scores["bleu"]


def test_bleu_and_ter_are_those_of_the_formula() -> None:
    """One wrong word: precisions 13/14, 10/12, 8/10 and 6/8, and no brevity penalty; one edit of 14 words."""
    scores = english().all_scores(rows(["the cat sat on the rug .", REFERENCES[1]]))
    assert scores["bleu"] == pytest.approx(100 * (13 / 14 * 10 / 12 * 8 / 10 * 6 / 8) ** 0.25)
    assert scores["ter"] == pytest.approx(100 / 14)


def test_ter_is_left_out_where_it_would_take_hours() -> None:
    long = "a b " * 1000
    scores = english().all_scores(rows([long], [long]))
    assert (scores["bleu"], scores["ter"]) == (pytest.approx(100.0), None)
    assert scores["ter_signature"].startswith("left out")


def test_order_matters_and_empty_translations_are_scored() -> None:
    assert english().scores(rows(REFERENCES[::-1]))["bleu"] < 20
    empty = english().all_scores(rows(["", ""]))
    assert (empty["bleu"], empty["chrf"], empty["ter"]) == (0.0, 0.0, 100.0)


def test_signatures_say_which_scores_they_are() -> None:
    scores = english().all_scores(rows(REFERENCES))
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in scores["signature"]
    assert "nc:6|nw:0" in scores["chrf_signature"]
    assert "tok:tercom|norm:no|punct:yes|asian:no" in scores["ter_signature"]


@pytest.mark.parametrize(
    ("references", "tokenizer", "ter"),
    [
        (["我看见猫。", "他喜欢树和火车"], "zh", "norm:yes|punct:yes|asian:yes"),
        (["ฉันเห็นแมวตัวหนึ่ง", "เขาชอบต้นไม้"], "char", "asian:no|version:2.6.0|pretok:char"),
    ],
)
def test_scripts_without_spaces(references: list[str], tokenizer: str, ter: str) -> None:
    """Perfect translations score BLEU 100, and one wrong character leaves more than half of TER's units right."""
    scorer = Scorer("auto", references)
    assert scorer.can_tell(references)
    assert not Scorer("13a", references).can_tell(references)
    perfect = scorer.all_scores(rows(references, references))
    assert (perfect["bleu"], perfect["ter"]) == pytest.approx((100.0, 0.0))
    assert f"|tok:{tokenizer}|" in perfect["signature"]
    assert ter in perfect["ter_signature"]
    wrong = [references[0].replace(references[0][1], "X", 1), references[1]]
    assert 0 < scorer.all_scores(rows(wrong, references))["ter"] < 50


def test_a_tokenizer_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MeCab", None)
    monkeypatch.setattr("dist_s2s.translation.scores.bleu_tokenizer.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ja-mecab is not installed: pip install 'sacrebleu\[ja\]', or choose another"):
        Scorer("ja-mecab", ()).can_tell(["私"])


def test_a_tokenizer_whose_model_cannot_be_downloaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> BLEU:
        raise OSError("no route to host")

    monkeypatch.setattr("dist_s2s.translation.scores.scoring.BLEU", refuse)
    with pytest.raises(UserError, match=r"flores200 cannot be had: .* failed .no route to host"):
        Scorer("flores200", ()).scores(rows(REFERENCES))


def test_the_configuration_knows_the_tokenizers_of_sacrebleu() -> None:
    assert set(BleuTokenizer.__args__) == {"auto", *BLEU.TOKENIZERS} - {"spm"}  # an old name of flores101
