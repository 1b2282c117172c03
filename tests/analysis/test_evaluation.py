"""What an evaluation tells of two systems, by hand and as a table."""

import json
from pathlib import Path

import pytest
from sacrebleu.metrics.chrf import CHRF

from dist_s2s import UserError
from dist_s2s.analysis.evaluation import compare_sentences, evaluate, plain_side
from dist_s2s.analysis.evaluation_tables import show_evaluation, told_apart
from dist_s2s.analysis.systems import Judged, System, check_lines, choose_tokenizer
from dist_s2s.config import Config
from dist_s2s.translation.runs.load import SavedRun
from dist_s2s.translation.scores.forced import Likelihood
from dist_s2s.translation.scores.scoring import Row, Scorer

FIRST: list[Row] = [
    ("a b", "the cat sat", "the cat sat"),
    ("a " * 6, "one two three four five", "one two four"),
    ("c", "nothing", ""),
    ("a d", "the dog", "the dogs"),
]
OTHER: list[Row] = [
    (source, reference, text)
    for (source, reference, _), text in zip(
        FIRST, ["the cat", "one two three four five", "nothing", "the dogs"], strict=True
    )
]


def test_who_wins_and_where_they_differ_most() -> None:
    found = compare_sentences(FIRST, OTHER, str.split, 1)
    assert found["wins"] == [
        {"first": 1, "last": 5, "better": 1, "equal": 1, "worse": 1},
        {"first": 6, "last": 10, "better": 1, "equal": 0, "worse": 0},
    ]
    best, worst = found["most_different"]
    assert (best["number"], best["first_chrf"], best["other_chrf"]) == (3, 0.0, 100.0)
    assert (worst["number"], worst["first"], worst["other"]) == (1, "the cat sat", "the cat")
    assert worst["other_chrf"] == CHRF().sentence_score("the cat", ["the cat sat"]).score
    assert compare_sentences(FIRST, FIRST, str.split, 5)["most_different"] == []


def test_two_systems_as_values_and_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    judged = [
        Judged("first", FIRST, Likelihood(-20.0, 10, 1, 40), {"seconds": 1.5, "beam_size": 2}, ["mind the gap"]),
        Judged("other.txt", OTHER, Likelihood(-20.0, 20, 11, 40), {}, []),
    ]
    scorer, side = Scorer("13a", []), plain_side()
    answer = {"data": "pairs.tsv", "sentences": 4, **evaluate(judged, scorer, side, side, None, 3)}
    assert json.loads(json.dumps(answer)) == answer
    assert answer["bleu"] == pytest.approx(scorer.scores(FIRST)["bleu"])
    assert answer["perplexity"]["per_token"] == pytest.approx(7.389, abs=1e-3)
    assert answer["lengths"]["translations"] == 8
    assert answer["lengths"]["ratio"] == 8 / 11
    assert answer["lengths"]["brevity_penalty"] == pytest.approx(2.71828 ** (1 - 11 / 8), abs=1e-5)
    assert [each["sentences"] for each in answer["by_length"]] == [3, 1]
    [other] = answer["compared"]
    assert other["system"] == "other.txt"
    assert 0 < other["chrf_p"] <= 1
    show_evaluation(answer)
    shown = capsys.readouterr().out
    for text in (
        "first",
        "other.txt",
        "1 of 10",
        "mind the gap",
        "1 of 10 for first",
        "unknown to other.txt",
        "4 sentences of pairs.tsv",
    ):
        assert text in shown
    assert f"{answer['bleu']:.2f} ± {answer['bleu_interval']:.2f}" in shown


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["/x/first/run", "/x/second/run"], ["first/run", "second/run"]),
        (["/x/run", "run", "other"], ["x/run", "run", "other"]),
        (["x/run", "x/run", "y.txt"], ["run", "run (2)", "y.txt"]),
        ([".", "../run"], [".", "run"]),
        (["/", "/run"], ["/", "run"]),
        (["runs/a + runs/b", "runs/b"], ["a + b", "b"]),
    ],
)
def test_systems_of_one_name_are_told_apart(names: list[str], told: list[str]) -> None:
    assert told_apart(names) == told


def test_unlike_files_and_tokenizers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"h.txt has 1 line, but p.tsv has 2 pairs"):
        check_lines("h.txt", ["a"], "p.tsv", [("a", "b"), ("c", "d")])
    runs = {name: Config(training={"bleu_tokenizer": name}) for name in ("13a", "zh")}
    monkeypatch.setattr(
        "dist_s2s.analysis.systems.read_run_or_checkpoint",
        lambda run: SavedRun(run, runs[run.name], plain_side(), plain_side()),
    )
    systems = [System("a", Path("13a"), None), System("h.txt", None, ["x"]), System("b", Path("zh"), None)]
    with pytest.raises(UserError, match="b has BLEU's tokenizer zh, but a has 13a"):
        choose_tokenizer(systems, None)
    assert choose_tokenizer(systems, "char") == "char"
    assert choose_tokenizer(systems[:2], None) == "13a"
    assert choose_tokenizer(systems[1:2], None) == "auto"
