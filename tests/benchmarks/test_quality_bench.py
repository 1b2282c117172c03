"""benchmarks/quality_bench.py: when a curve reaches a score, what JoeyNMT is told; nothing is trained twice."""

import json
from pathlib import Path

import pytest

import quality_bench

CONFIG = """
data: {train: train.tsv, valid: dev.tsv, test: test.tsv, target_vocabulary_size: 500, batch_tokens: 700}
model: {embedding_dim: 32, hidden_size: 48, dropout: 0.25}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which both have been trained."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "summary.json").write_text("{}")
    ours = [{"step": 20, "loss": 3.0}, {"minutes": 2.0, "valid_bleu": 21.0}, {"minutes": 4.0, "valid_bleu": 36.0}]
    (tmp_path / "ours" / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in ours))
    (tmp_path / "joeynmt").mkdir()
    theirs = [{"minutes": 20.0, "bleu": 30.5}, {"minutes": 60.0, "bleu": 29.0}]
    (tmp_path / "joeynmt" / "curve.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in theirs))
    (tmp_path / "config.yaml").write_text(CONFIG)
    told = {"config": CONFIG, "ranks": 2, "keys": {"training.max_minutes": 60.0}}
    (tmp_path / "ours.json").write_text(json.dumps(told))
    options = quality_bench._parse(["--config", str(tmp_path / "config.yaml"), "--folder", str(tmp_path)])
    job = quality_bench.joeynmt_job(quality_bench.load_config(options.config, {}), options)
    (tmp_path / "joeynmt" / "job.json").write_text(json.dumps(job))
    return tmp_path


def test_ratios_are_those_of_the_first_validations_that_are_good_enough(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(folder / "config.yaml"), "--folder", str(folder), "--json", str(folder / "out.json")]
    pytest.importorskip("matplotlib")
    assert quality_bench.main([*arguments, "--plot", str(folder / "out.png")]) == 0
    shown = capsys.readouterr().out
    for cell in ("30.50", "36.00", "not in 60", "5.0×", "> 15.0×"):
        assert cell in shown
    found = json.loads((folder / "out.json").read_text())
    assert found["curves"]["ours"] == [{"minutes": 2.0, "bleu": 21.0}, {"minutes": 4.0, "bleu": 36.0}]
    assert (folder / "out.png").stat().st_size > 1000


def test_a_folder_of_other_settings_is_refused(folder: Path) -> None:
    arguments = ["--config", str(folder / "config.yaml"), "--folder", str(folder)]
    with pytest.raises(SystemExit, match=r"joeynmt was made with other settings \(threads\): give another --folder"):
        quality_bench.main([*arguments, "--peer_threads", "3"])
    with pytest.raises(SystemExit, match=r"ours was made with other settings \(keys\)"):
        quality_bench.main([*arguments, "--minutes", "3"])
    (folder / "joeynmt" / "curve.jsonl").unlink()
    (folder / "joeynmt" / "job.json").unlink()
    with pytest.raises(SystemExit, match="is there, but is no run of JoeyNMT"):
        quality_bench.main(arguments)
    assert (folder / "joeynmt").is_dir()


def test_joeynmt_gets_the_sizes_of_the_configuration(folder: Path) -> None:
    options = quality_bench._parse(["--config", str(folder / "config.yaml"), "--folder", str(folder)])
    job = quality_bench.joeynmt_job(quality_bench.load_config(options.config, {}), options)
    assert (job["hidden_size"], job["embedding_dim"], job["dropout"]) == (48, 32, 0.25)
    assert (job["vocabulary_size"], job["batch_tokens"], job["input_feeding"]) == (500, 1500, True)
    assert job["minutes"] == 120.0
