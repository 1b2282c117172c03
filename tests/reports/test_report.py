"""`dist-s2s report`: what its page has, what it says is missing, and that no text of a corpus becomes markup."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from dist_s2s import UserError
from dist_s2s.analysis.word_map import WordMap
from dist_s2s.distributed import Ranks, joined_ranks
from dist_s2s.reports import blocks
from dist_s2s.reports.at_end import see_at_end, write_at_end
from dist_s2s.reports.blocks import Missing, Report, Section
from dist_s2s.reports.charts import describe_bars, describe_lines
from dist_s2s.reports.collecting import collect
from dist_s2s.reports.course import balance_section, time_section, training_section
from dist_s2s.reports.history import RunHistory
from dist_s2s.reports.scores import read_translations, scores_section
from dist_s2s.reports.word_sections import evolution_section, words_section
from dist_s2s.reports.writing import page_of, write_report
from dist_s2s.storage.recorded_vectors import RecordedVectors, RecordedWord, vectors_file
from dist_s2s.translation.runs.load import best_checkpoint, load_translator
from tests.commands import run
from tests.reports.test_watch import append, figures, report

pytest.importorskip("matplotlib")
EVIL = """<img src=x onerror=alert(1)></script><script>alert(2)</script>"'&{{ 7 * 7 }}"""
ROWS = [("一", "the cat sat on the mat", "the cat sat on a mat"), ("二", "a dog is here now", "a dog was here now")]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    with joined_ranks(threads=1) as ranks:
        yield ranks


def missing(section: Section) -> list[str]:
    return [block.reason for block in section.blocks if isinstance(block, Missing)]


def test_the_page_has_everything_and_needs_nothing(saved_run: Path, alone: Ranks, tmp_path: Path) -> None:
    found = collect(saved_run, [saved_run], ["cat", "猫"], alone)
    assert {section.anchor: missing(section) for section in found.sections if missing(section)} == {
        "evolution": [
            "no vectors were recorded; to see how words move, train with --training.record_vectors_every 100, say"
        ]
    }
    size = write_report(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert size == len(page.encode()) < 2_000_000
    assert re.findall(r"https?:|url\((?!#)|@import|\bsrc=", page.replace("http://www.w3.org/2000/svg", "")) == []
    elements = Elements(page)
    assert elements.named("link") == []
    policy = next(each["content"] for each in elements.named("meta") if each.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    images = [each for each in elements.named("svg") if "viewbox" in each]
    # Loss, scores, speed; parts of a step; rows and waiting of ranks; errors by length, and by frequency.
    assert len(images) == 8
    assert all(each["role"] == "img" and each["aria-label"] for each in images)
    assert len(elements.named("figure")) == 8
    assert len(elements.named("input")) == 2  # a search for each map
    anchors = {each["id"] for each in elements.named("section")}
    assert {str(each["href"])[1:] for each in elements.named("a")} == anchors
    for text in ("Cosines of source words", "48 test sentences", "p of BLEU", "--ranks 2", "师", "Model card"):
        assert text in elements.text


def test_texts_never_become_markup() -> None:
    words = WordMap([EVIL, "b"], np.zeros((2, 2)), np.eye(2), None, None, EVIL, [])
    heat = blocks.Heat(EVIL, [EVIL], [EVIL], [[-0.5]])
    shown = [
        *(blocks.Note(EVIL), blocks.Missing(EVIL), blocks.Facts([(EVIL, EVIL)]), blocks.Code(EVIL, EVIL), heat),
        *(blocks.Table(EVIL, [EVIL], [[EVIL]]), blocks.Map(EVIL, words), blocks.Sentence(EVIL, [(EVIL, EVIL)], heat)),
        blocks.Lines(EVIL, "step", "y", {EVIL: [(1, 2.0), (2, 1.0)]}),
        blocks.Bars(EVIL, "y", ["a"], {EVIL: [1.0]}),
    ]
    elements = Elements(page_of(Report(EVIL, EVIL, [Section("a", EVIL, shown)])))
    assert elements.named("img") == []
    assert len(elements.named("script")) == 2  # the map's data, and the page's own
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert elements.text.count(EVIL) > 20


def test_what_is_missing_is_said(saved_run: Path, alone: Ranks, tmp_path: Path) -> None:
    for name in ("config.yaml", "run.json", "source_vocabulary.txt", "target_vocabulary.txt"):
        shutil.copy(saved_run / name, tmp_path)
    append(tmp_path, {"step": 20, "loss": 3.0, "tokens_per_second": 5.0, "exchange_share": 0.25})
    found = collect(tmp_path, [], [], alone)
    said = {section.anchor: " ".join(missing(section)) for section in found.sections}
    for anchor, text in {
        "scores": "has no translations.txt: it comes when the training ends",
        "training": "Scores of the validation data",
        "time": "no figures of the ranks",
        "balance": "no figures of the ranks",
        "words": "has no checkpoint yet",
        "samples": "has no translations.txt",
        "errors": "has no translations.txt",
        "data": "has no checkpoint yet",
        "reproduce": "the number of ranks",
    }.items():
        assert text in said[anchor]
    assert "the exchange of rows took 25.0% of the time" in Elements(page_of(found)).text
    with pytest.raises(UserError, match="nothing to compare"):
        collect(tmp_path, [saved_run], [], alone)


def test_intervals_are_those_of_sacrebleu() -> None:
    rows = ROWS * 20
    section = scores_section(("a", rows), {}, [("b", rows)], "13a")
    table = section.blocks[0]
    assert isinstance(table, blocks.Table)
    expected = BLEU().corpus_score([row[2] for row in rows], [[row[1] for row in rows]], n_bootstrap=1000)
    assert table.rows[0][1] == f"{expected.score:.2f} ± {expected._ci:.2f}"
    assert table.rows[1][:2] == ["b", table.rows[0][1]]
    assert float(table.rows[1][2]) == 1.0  # it is the same translation
    with pytest.raises(UserError, match=r"b cannot be compared with a: their translations are of other sentences"):
        scores_section(("a", rows), {}, [("b", rows[1:])], "13a")


def test_too_many_sentences_have_no_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.translation.scores.significance._RESAMPLED", 100)
    section = scores_section(("a", ROWS), {}, [("b", ROWS)], "13a")
    assert "too many to resample" in missing(section)[0]
    table = section.blocks[0]
    assert isinstance(table, blocks.Table)
    assert [row[0] for row in table.rows] == ["a", "b"]


@pytest.mark.parametrize("content", [b"a\tb\n", b"", b"a\tb\tc\td\n", b"\xff\tb\tc\n"])
def test_damaged_translations_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "translations.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"translations\.txt"):
        read_translations(tmp_path)


def test_a_course_is_summed_up_over_all_reports(tmp_path: Path) -> None:
    append(tmp_path, *(report(step, ranks=figures(2, core_seconds=[step / 1000, 0.2])) for step in range(1, 1001)))
    history = RunHistory(tmp_path, recent=None)
    history.read()
    [parts] = [block for block in time_section(history).blocks if isinstance(block, blocks.Bars)]
    assert dict(zip(parts.names, parts.groups["mean of the ranks"], strict=True))["core"] == pytest.approx(350.25)
    losses = training_section(history).blocks[0]
    assert isinstance(losses, blocks.Lines)
    points = losses.lines["training"]
    assert len(points) <= 401
    assert points[-1][0] == 1000
    assert "training: 4.99 at step 1, -5 at step 1,000" in describe_lines(losses)


def test_the_hottest_of_many_ranks_is_shown(tmp_path: Path) -> None:
    append(tmp_path, report(20, ranks=figures(100, rows_served=[*[100.0] * 99, 900.0])))
    history = RunHistory(tmp_path, recent=None)
    history.read()
    note, rows, *_ = balance_section(history).blocks
    assert isinstance(note, blocks.Note)
    assert note.text == "Owner 99 serves most rows: 8.33 times an even share. 65 of 100 ranks are shown."
    assert isinstance(rows, blocks.Bars)
    assert describe_bars(rows) == "owner: most 99 with 900, least 0 with 100"


def test_recorded_words_are_shown(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2, 3)).astype(np.float32)
    rows[:, 1] = np.nan
    words = (RecordedWord("猫", 4), RecordedWord("none", 5))
    RecordedVectors(words, np.arange(300), rows).save(vectors_file(tmp_path, "source"))
    drift, norms, near, table = evolution_section(tmp_path).blocks
    assert isinstance(drift, blocks.Lines)
    assert list(drift.lines) == ["猫"]
    assert drift.lines["猫"][-1] == (299, pytest.approx(np.linalg.norm(rows[299, 0] - rows[0, 0]), rel=1e-6))
    assert isinstance(norms, blocks.Lines)
    assert norms.lines["猫"][-1] == (299, pytest.approx(np.linalg.norm(rows[299, 0]), rel=1e-6))
    assert isinstance(near, blocks.Table)
    assert near.headings == ("word", "step 0", "step 75", "step 150", "step 224", "step 299")
    assert near.rows[0] == ["猫", *[""] * 5]  # the other word is never there
    assert isinstance(table, blocks.Table)
    assert [row[0] for row in table.rows] == ["猫", "none"]


def test_the_command(saved_run: Path, tmp_path: Path) -> None:
    output = run("dist_s2s.report", "--run", saved_run, "--output", tmp_path / "r.html").output
    assert output.startswith(f"report of {saved_run} in {tmp_path / 'r.html'} (")
    error = run("dist_s2s.report", "--run", tmp_path, status=2).errors[0]
    assert error == f"error: {tmp_path} is not a run directory: it has no config.yaml\n"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_word_that_no_side_knows_is_told(saved_run: Path, alone: Ranks) -> None:
    with pytest.raises(UserError, match="'zebra' is not in the source vocabulary"):
        words_section(load_translator(saved_run, alone), best_checkpoint(saved_run), ["cat", "zebra"])


def test_a_report_that_fails_is_a_line(
    saved_run: Path, alone: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved_run, tmp_path / "a run")
    said: list[str] = []
    translator = load_translator(tmp_path / "a run", alone)
    translator.config = translator.config.model_copy(update={"run_dir": tmp_path / "a run"})

    def attempt() -> str:
        seen = see_at_end(translator, said.append)
        if seen is not None:
            write_at_end(translator, seen, said.append)
        return said.pop()

    page = tmp_path / "a run" / "report.html"
    later = f"To write it later: dist-s2s report --run '{tmp_path}/a run'"
    page.mkdir()
    assert attempt().startswith(f"warning: no report.html was written: {page} cannot be written: ")
    page.rmdir()
    assert attempt().startswith(f"report of the run in {page} (")
    for target, error, reason in (
        ("writing.write_output", UserError("disk full"), "disk full"),
        ("collecting.see", ZeroDivisionError("by\nzero"), "ZeroDivisionError: by zero"),
        ("sentences.choose", KeyError("a"), "KeyError: 'a'"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"dist_s2s.reports.{target}", Mock(side_effect=error))
            assert (
                attempt() == f"warning: no report.html was written: {reason}; the report.html there is older. {later}"
            )
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "jinja2", None)
        assert "a report needs the extra \"analysis\": pip install 'dist-s2s[analysis]'" in attempt()


def test_a_damaged_summary_is_told(saved_run: Path, alone: Ranks, tmp_path: Path) -> None:
    shutil.copytree(saved_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "run" / "summary.json").write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        collect(tmp_path / "run", [], [], alone)
