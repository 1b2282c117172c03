"""The command `prepare`, and training on what it leaves."""

from pathlib import Path

from tests.commands import run
from tests.test_train import losses
from tests.toy_corpus import PAIRS, options


def prepare(corpus: Path, output: Path, *words: object, status: int = 0) -> list[str]:
    given = ["--valid", corpus, "--test", corpus, "--filters", "length"]
    finished = run("dist_s2s.prepare", corpus, "--output", output, *given, "--workers", 1, *words, status=status)
    return (finished.errors if status else finished.outputs)[0].splitlines()


def test_training_is_the_same_from_the_disk_as_from_memory(corpus: Path, tmp_path: Path) -> None:
    shown = prepare(corpus, tmp_path / "prepared", "--data.source_tokenizer=words", "--data.max_length", 90)
    assert shown[-2] == f"{len(PAIRS)} pairs for training, {len(PAIRS)} for validation, {len(PAIRS)} for the test"
    keys = {"training__max_steps": 6, "training__validate_every": 3}
    from_text = options(corpus, tmp_path / "text", data__source_tokenizer="words", data__max_length=90, **keys)
    run("dist_s2s.train", *from_text, ranks=2)
    named = [f"--data.{split}={corpus}" for split in ("train", "valid", "test")]
    mapped = [word for word in options(corpus, tmp_path / "mapped", **keys) if word not in named]
    mapped.append(f"--data.train={tmp_path / 'prepared'}")
    output = run("dist_s2s.train", *mapped, ranks=2).output
    assert losses(tmp_path / "mapped") == losses(tmp_path / "text")
    assert f"{len(PAIRS)} training pairs from {tmp_path / 'prepared'}" in output
    for file in ("source_vocabulary.txt", "translations.txt"):
        assert (tmp_path / "mapped" / file).read_bytes() == (tmp_path / "text" / file).read_bytes()

    other = [*mapped, "--data.source_tokenizer=characters", f"--run_dir={tmp_path / 'refused'}"]
    error = run("dist_s2s.train", *other, status=2).errors[0]
    assert "was prepared with other settings (data.source_tokenizer: words there, characters here)" in error
    assert not (tmp_path / "refused").exists()


def test_mistakes_are_told_in_a_line(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zh").write_text("一\n二\n", encoding="utf-8")
    (tmp_path / "a.en").write_text("one\n", encoding="utf-8")
    sides = Path(f"{tmp_path}/a.zh,{tmp_path}/a.en")
    parallel = prepare(sides, tmp_path / "out", status=2)[0]
    assert f"a.zh has 2 lines, but {tmp_path}/a.en has 1: parallel files have a line for each line" in parallel
    unknown = prepare(corpus, tmp_path / "out", "--data.source_tokeniser", "words", status=2)
    assert unknown[0].startswith("error: unknown key data.source_tokeniser on the command line; did you mean")
    assert "there is no filter 'lenght'" in prepare(corpus, tmp_path / "out", "--filters", "lenght", status=2)[-1]
    assert not (tmp_path / "out").exists()
