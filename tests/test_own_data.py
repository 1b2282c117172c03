"""`train` on files that are its arguments: prepared, configured by what is in them, trained, and resumed."""

from pathlib import Path

import yaml

from tests.commands import run

SMALL = ("--model.embedding_dim=8", "--model.hidden_size=16", "--training.max_steps=3")


def write_pairs(path: Path) -> Path:
    """Pairs that differ, in Chinese and English."""
    pairs = [f"我有{number}本书。\tI have {number} books.\n" for number in range(200)]
    path.write_text("".join(pairs), encoding="utf-8")
    return path


def test_files_are_enough(tmp_path: Path) -> None:
    pairs, run_dir = write_pairs(tmp_path / "pairs.tsv"), tmp_path / "run"
    arguments = (pairs, *SMALL, f"--run_dir={run_dir}")
    finished = run("dist_s2s.train", *arguments, ranks=2)
    assert "200 lines read" in finished.output
    assert "data.source_tokenizer = characters: its script has no spaces between words" in finished.output
    assert "data.target_tokenizer = words: there are few pairs" in finished.output
    assert "model.hidden_size" not in finished.output  # it is set
    assert "estimated: " in finished.output
    assert "in each of 2 processes, for 3 steps" in finished.output
    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"]["train"] == config["data"]["test"] == str(tmp_path / "run.corpus")
    assert (config["model"]["hidden_size"], config["data"]["batch_tokens"]) == (16, 300)
    assert f"report of the run in {run_dir / 'report.html'}" in finished.output
    few = ("--training.max_steps=4", "--training.report=false")
    again = run("dist_s2s.train", pairs, f"--run_dir={run_dir}", *few)  # what was set is remembered
    assert f"what is not set is as in {run_dir / 'config.yaml'}" in again.output
    assert "chosen, because" not in again.output
    assert "going on from" in again.output
    assert "finished at step 4" in again.output
    tuned = run("dist_s2s.train", pairs, f"--run_dir={tmp_path / 'tuned'}", f"--training.init_from={run_dir}", *few)
    assert f"encoding and model are as in {run_dir}" in tuned.output
    assert "data.batch_tokens = 300" in tuned.output
    assert "finished at step 4" in tuned.output
    finished = run("dist_s2s.train", tmp_path / "run.corpus", *SMALL, f"--run_dir={tmp_path / 'other'}", status=2)
    assert "run.corpus is a prepared corpus: train on it with --data.train" in finished.errors[0]


def test_columns_are_chosen(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv")
    lines = [f"{number}\t{line}\n" for number, line in enumerate(pairs.read_text(encoding="utf-8").splitlines())]
    pairs.write_text("".join(lines), encoding="utf-8")
    run_dir = f"--run_dir={tmp_path / 'run'}"
    finished = run("dist_s2s.train", pairs, *SMALL, run_dir, status=2)
    assert "has 3 columns: say which two are source and target, as in --columns 1,2" in finished.errors[0]
    finished = run("dist_s2s.train", pairs, *SMALL, run_dir, "--columns", "3,2", "--training.report=false")
    assert "data.target_tokenizer = characters" in finished.output


def test_mistakes_are_told_before_anything_is_read(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv")
    for arguments, message in (
        (
            (tmp_path / "nowhere.tsv",),
            "nowhere.tsv does not exist: give files of pairs",
        ),
        ((pairs, "--data.train=x"), "is to be trained on, but data.train or data.stream is set too: leave out one"),
        ((pairs, "--minutes=soon"), "training.max_minutes"),
        ((pairs, "--data.vocabulary=keep", "--training.init_from=x"), "keep needs pairs that are split already"),
        (
            (pairs, "--data.joint_vocabulary=true", "--model.embedding_dim=8"),
            "data.joint_vocabulary needs data.source_tokenizer = data.target_tokenizer, but they are characters",
        ),
        ((pairs, "--minuets=3"), "unknown key minuets on the command line"),
    ):
        finished = run("dist_s2s.train", *arguments, f"--run_dir={tmp_path / 'run'}", status=2)
        assert message in finished.errors[0]
        assert not (tmp_path / "run.corpus").exists()


def test_files_without_pairs_are_told(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    for content, arguments, message in (
        ("", (), "pairs.tsv is empty: it has no pair"),
        ("no tab\n", ("--data.skip_bad_lines=true",), "pairs.tsv: no line of it is a pair"),
    ):
        file.write_text(content, encoding="utf-8")
        finished = run("dist_s2s.train", file, *arguments, f"--run_dir={tmp_path / 'run'}", status=2)
        assert message in finished.errors[0]
        assert not (tmp_path / "run.corpus").exists()
