"""The command on records that were made up: its table, its picture, and what it says of mistakes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dist_s2s import UserError, evolution
from dist_s2s.analysis import fonts
from dist_s2s.analysis.evolution_picture import draw_evolution
from dist_s2s.storage.recorded_vectors import RecordedVectors, RecordedWord, vectors_file
from tests.commands import run

NAMES = ["猫", "$a_1$", "never", "gone"]


def records(steps: int = 4) -> RecordedVectors:
    rows = np.random.default_rng(0).normal(size=(steps, 4, 6)).astype(np.float32)
    rows[:, 2] = np.nan
    words = [RecordedWord(name, number + 4) for number, name in enumerate(NAMES)]
    words[3] = RecordedWord("gone", 7, absent_after=10)
    return RecordedVectors.empty(words, 6).extended(words, np.arange(steps) * 10, rows)


def test_table_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records().save(vectors_file(tmp_path, "source"))
    picture = tmp_path / "moves.png"
    finished = run("dist_s2s.evolution", "--run", tmp_path, "--output", picture)
    assert finished.output.splitlines()[0].strip() == f"source words of {tmp_path}"
    lines = [line for line in finished.output.splitlines() if any(name in line for name in NAMES)]
    assert [line.split("│")[2].strip() for line in lines[:4]] == ["0–30", "0–30", "none", "0–10"]
    assert f"4 words at 4 steps in {picture}" in finished.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("where", "side", "names", "message"),
    [
        ("run", "target", None, "has recorded no vectors yet: train with training.record_vectors_every"),
        ("run", "source", ["猫", "dog"], r"'dog' is not among the recorded source words; they are: 猫 \$a_1\$ never"),
        ("nowhere", "source", None, "nowhere is not a run directory"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, where: str, side: str, names: list[str], message: str) -> None:
    (tmp_path / "run").mkdir()
    records().save(vectors_file(tmp_path / "run", "source"))
    with pytest.raises(UserError, match=message):
        evolution._read(tmp_path / where, side, names)


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        (4, "moves.doc", r"moves.doc: no picture is written as \.doc; try \.png"),
        (4, "moves", "moves: no picture is written without a suffix; try"),
        (4, "nowhere/a.svg", r"a\.svg cannot be written: No such file or directory"),
        (0, "a.png", "none of the words has been recorded yet"),
    ],
)
def test_pictures_that_cannot_be_drawn_are_told(tmp_path: Path, words: int, name: str, message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UserError, match=message):
        draw_evolution(records().of_words(records().words[:words]), "title", tmp_path / name)


@pytest.mark.parametrize("steps", [1, 2])
def test_few_records(tmp_path: Path, steps: int) -> None:
    pytest.importorskip("matplotlib")
    draw_evolution(records(steps), "few", tmp_path / "few.svg")
    assert (tmp_path / "few.svg").stat().st_size > 0


def test_characters_without_a_font_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has no fonts but matplotlib's own."""
    pytest.importorskip("matplotlib")
    assert fonts.fonts_for(["cat", "Ünï ▁the"], "labels") == (["DejaVu Sans"], set())
    every = fonts._regular_fonts("labels")
    monkeypatch.setattr(fonts, "_regular_fonts", lambda _: every[:1])
    assert every[0][0] == "DejaVu Sans"
    assert fonts.fonts_for(["猫 cat\u200b"], "labels") == (["DejaVu Sans"], {"猫"})
    warning = draw_evolution(records(), "title", tmp_path / "moves.svg")
    assert warning.startswith(
        "no font here has 猫, which show as boxes; for Chinese, Japanese and Korean install fonts"
    )


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r'needs the extra "analysis": pip install .dist-s2s\[analysis\]'):
        draw_evolution(records(), "title", tmp_path / "moves.png")
