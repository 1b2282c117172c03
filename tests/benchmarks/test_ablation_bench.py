"""benchmarks/ablation_bench.py: one training for each row and seed, none of them twice, and their scores as a table."""

import json
import os
from pathlib import Path
from threading import Barrier

import pytest

import ablation_bench
from common.commands import as_flags
from dist_s2s.config import load_config
from tests.commands import ROOT

TRICKS = sorted((ROOT / "benchmarks" / "tricks").glob("*.yaml"))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run; instead of working they leave results behind."""
    seen: list[list[str]] = []

    def run(name: str, *arguments: object) -> None:
        words = [name, *map(str, arguments)]
        seen.append(words)
        score = 20.0 + len(seen)
        if name == "train":
            run_dir = Path(words[words.index("--run_dir") + 1])
            run_dir.mkdir()
            summary = {"bleu": score, "chrf": score, "steps": 10, "seconds": 60.0, "tokens_per_second": 100}
            (run_dir / "summary.json").write_text(json.dumps(summary))
        else:
            Path(words[-1]).write_text(json.dumps({"bleu": score, "chrf": score, "signature": "tok:13a"}))

    monkeypatch.setattr("common.commands.command", run)
    return seen


def test_rows_and_seeds_are_trained_once(
    commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tricks = tmp_path / "tricks.yaml"
    tricks.write_text("base: {}\n'no smoothing, half': {training.label_smoothing: 0.0, model.dropout: 0.5}\n")
    base = tmp_path / "base.yaml"
    base.write_text("training: {seed: 7}\n")
    arguments = ["--config", str(base), "--tricks", str(tricks), "--folder", str(tmp_path / "runs"), "--minutes", "2"]
    arguments += ["--json", str(tmp_path / "out.json")]
    assert ablation_bench.main(arguments) == 0
    assert [words[0] for words in commands] == ["train", "evaluate"] * 2
    trained = commands[2]
    assert trained[trained.index("--training.label_smoothing") + 1] == "0.0"
    assert trained[trained.index("--run_dir") + 1].endswith("no-smoothing-half-1")
    assert trained[trained.index("--training.max_minutes") + 1] == "2.0"
    assert ablation_bench.main([*arguments, "--seeds", "2"]) == 0
    assert len(commands) == 8
    shown = capsys.readouterr().out
    assert "22.00" in shown  # base, by the second command
    assert "24.00 ± 2.83" in shown  # and by the sixth
    with pytest.raises(SystemExit, match=r"base-1 was made with other settings \(keys\): give another --folder"):
        ablation_bench.main([*arguments, "--minutes", "3"])
    base.write_text("training: {seed: 8}\n")
    with pytest.raises(SystemExit, match=r"base-1 was made with other settings \(config\)"):
        ablation_bench.main(arguments)
    assert [run["seed"] for run in json.loads((tmp_path / "out.json").read_text())["runs"]["base"]] == [1, 2]


def test_trainings_at_once_have_cores_of_their_own() -> None:
    before = os.sched_getaffinity(0)
    count = len(before)
    met = Barrier(count, timeout=10)

    def affinity(_: int) -> frozenset[int]:
        met.wait()
        return frozenset(os.sched_getaffinity(0))

    with ablation_bench.pool(count) as workers:
        found = list(workers.map(affinity, range(count)))
    assert sorted(core for cores in found for core in cores) == sorted(before)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(SystemExit, match=f"--at_once {count + 1} does not divide the {count} cores"):
        ablation_bench.pool(count + 1)


def test_what_is_no_map_of_keys_is_told(tmp_path: Path) -> None:
    tricks = tmp_path / "tricks.yaml"
    tricks.write_text("base:\n")
    with pytest.raises(SystemExit, match="must map names to keys"):
        ablation_bench.read_tricks(tricks)
    tricks.write_text("a b: {}\na+b: {training.seed: 1}\n")
    with pytest.raises(SystemExit, match="two rows whose runs would be called a-b"):
        ablation_bench.read_tricks(tricks)


@pytest.mark.parametrize("file", TRICKS, ids=lambda file: file.stem)
def test_rows_that_are_shipped_go_with_their_configuration(file: Path) -> None:
    base = load_config(ROOT / "configs" / file.name, {})
    rows = ablation_bench.read_tricks(file)
    assert rows.pop("base") == {}
    for name, keys in rows.items():
        changed = load_config(ROOT / "configs" / file.name, as_flags(keys))
        assert changed != base, name


def test_there_are_rows() -> None:
    assert "multi30k-de-en" in {file.stem for file in TRICKS}
