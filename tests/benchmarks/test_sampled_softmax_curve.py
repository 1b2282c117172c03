"""The curve of sampled softmax on a tiny layer: it falls, and it is written and drawn."""

import json
from pathlib import Path

import pytest

import sampled_softmax_curve
from common import arguments

SIZES = ["--num_classes=131", "--hidden_size=8", "--tokens=12", "--peak=2"]
SMALL = [*SIZES, "--draws=60", "--samples", "8", "64", "512", "50000"]


def test_both_errors_fall_to_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "curve.json"
    assert sampled_softmax_curve.main([*SMALL, f"--json={file}"]) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["settings"]["samples"] == [point["samples"] for point in report["curve"]] == [8, 64, 512, 50000]
    assert report["perplexity"] > 1
    assert report["curve"][0]["candidates"] < 8
    assert report["curve"][-1]["candidates"] == 131
    for part in sampled_softmax_curve.PARTS:
        of_one_draw = [point["of_one_draw"][part] for point in report["curve"]]
        of_the_mean = [point["of_the_mean"][part] for point in report["curve"]]
        assert of_one_draw == sorted(of_one_draw, reverse=True)
        assert of_the_mean[:-1] == sorted(of_the_mean[:-1], reverse=True)
        assert of_one_draw[0] > 0.3
        assert of_the_mean[0] > 0.05
        assert max(of_one_draw[-1], of_the_mean[-1]) < 1e-9  # every class is drawn
        assert all(mean < one for mean, one in zip(of_the_mean[:-1], of_one_draw[:-1], strict=True))
    assert "perplexity" in capsys.readouterr().out


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "curve.png"
    assert sampled_softmax_curve.main([*SMALL, f"--plot={file}"]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_plot_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        sampled_softmax_curve.main([*SMALL, f"--plot={tmp_path / 'curve.png'}"])
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "curve.png").exists()
