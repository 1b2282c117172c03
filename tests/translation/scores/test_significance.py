"""Scores and p-values against sacreBLEU's own, and where nothing can be resampled."""

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from dist_s2s import UserError
from dist_s2s.translation.scores import significance
from dist_s2s.translation.scores.scoring import Row, Scorer
from dist_s2s.translation.scores.significance import SystemScore, check_same_pairs, compare

GOOD: list[Row] = [(f"s{n}", f"it was number {n} that rang", f"it was number {n} that rang") for n in range(20)]
BAD: list[Row] = [(source, text, text if n % 3 else f"number {n} rings") for n, (source, text, _) in enumerate(GOOD)]
SYSTEMS = [("good", GOOD), ("bad", BAD)]


def test_all_metrics_are_those_of_sacrebleu() -> None:
    metrics = {"BLEU": BLEU(), "chrF2": CHRF(), "TER": TER()}
    named = [(name, [row[2] for row in rows]) for name, rows in SYSTEMS]
    signatures, expected = PairedTest(named, metrics, [[row[1] for row in GOOD]], "bs", n_samples=1000)()
    found = compare(SYSTEMS, Scorer("13a", []), with_ter=True)
    assert [each.metric for each in found] == ["BLEU", "chrF", "TER"]
    for each, name in zip(found, metrics, strict=True):
        good, bad = expected[name]
        assert each.systems == [SystemScore(good.score, good.ci, None), SystemScore(bad.score, bad.ci, bad.p_value)]
        assert each.bootstrap == str(signatures[name])
        assert "bs:1000|seed:12345" in each.bootstrap
        assert "bs:" not in each.signature
    assert found[0].systems[1].p < 0.05


def test_ter_of_characters_and_equal_systems() -> None:
    found = compare([SYSTEMS[0], SYSTEMS[0]], Scorer("char", []), with_ter=True)
    assert [each.systems[1].p for each in found] == [1.0, 1.0, 1.0]
    assert found[2].signature.endswith("|pretok:char")
    assert found[2].bootstrap.endswith("|pretok:char")


def test_what_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_RESAMPLED", 100)
    monkeypatch.setattr("dist_s2s.translation.scores.scoring._TER_CELLS", 100)
    found = compare(SYSTEMS, Scorer("13a", []), with_ter=True)
    assert [(each.metric, each.bootstrap) for each in found] == [("BLEU", ""), ("chrF", "")]
    assert found[0].systems[1] == SystemScore(Scorer("13a", []).scores(BAD)["bleu"], None, None)


def test_other_sentences_do_not_compare() -> None:
    check_same_pairs(SYSTEMS)
    with pytest.raises(UserError, match="b cannot be compared with a: their translations are of other sentences"):
        check_same_pairs([("a", GOOD), ("b", GOOD[1:])])
