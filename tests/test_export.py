"""Word vectors out of a run, in every form, and into the next run."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dist_s2s.export import FORMATS
from dist_s2s.text.vectors.reading import VectorFile
from tests.commands import run
from tests.toy_corpus import options

FORMS = [form for form in FORMATS if form != "keyedvectors"]


@pytest.fixture(scope="module")
def exported(saved_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, files = tmp_path_factory.mktemp("exported"), {}
    for form in FORMS:
        files[form] = folder / form
        command = ("--run", saved_run, "--side", "target", "--format", form, "--output", files[form])
        finished = run("dist_s2s.export", *command)
        assert finished.output.startswith(f"{len(tokens_of(saved_run))} vectors of ")
    return files


def tokens_of(run_dir: Path) -> list[str]:
    return (run_dir / "target_vocabulary.txt").read_text(encoding="utf-8").splitlines()


def rows_of(path: Path) -> tuple[list[str], np.ndarray]:
    file = VectorFile(path)
    records = list(file.records())
    return [record.word.decode() for record in records], file.parse(records)


def test_every_form_holds_the_same_rows(saved_run: Path, exported: dict[str, Path]) -> None:
    tokens, rows = rows_of(exported["word2vec"])
    assert tokens == tokens_of(saved_run)
    assert rows_of(exported["word2vec_binary"])[1].tobytes() == rows.tobytes()
    assert load_file(exported["safetensors"] / "vectors.safetensors")["weight"].tobytes() == rows.tobytes()
    assert (exported["safetensors"] / "vocabulary.txt").read_text(encoding="utf-8").splitlines() == tokens
    lines = (exported["projector"] / "vectors.tsv").read_text(encoding="utf-8").splitlines()
    assert np.array([line.split("\t") for line in lines], dtype=np.float32).tobytes() == rows.tobytes()
    assert (exported["projector"] / "metadata.tsv").read_text(encoding="utf-8").splitlines() == tokens
    assert sorted(file.name for file in exported["word2vec"].parent.iterdir()) == sorted(FORMS)


def test_gensim_reads_its_own_form(saved_run: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    run(
        "dist_s2s.export",
        "--run",
        saved_run,
        "--side",
        "target",
        "--format",
        "keyedvectors",
        "--output",
        tmp_path / "k",
    )
    tokens, rows = rows_of(exported["word2vec"])
    vectors = models.KeyedVectors.load(str(tmp_path / "k" / "vectors.kv"))
    assert vectors.index_to_key == tokens
    assert vectors.vectors.tobytes() == rows.tobytes()


def test_the_next_run_begins_with_them(corpus: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    vectors = exported["word2vec"]
    settings = options(
        corpus,
        tmp_path / "next",
        training__max_steps=2,
        data__target_vectors=vectors,
        embedding__freeze_vectors=True,
    )
    finished = run("dist_s2s.train", *settings)
    assert f"target vectors: from {vectors}" in finished.output
    assert "(100.0%)" in finished.output
    run("dist_s2s.export", "--run", tmp_path / "next", "--side", "target", "--output", tmp_path / "again")
    tokens, rows = rows_of(vectors)
    again, their_rows = rows_of(tmp_path / "again")
    assert again == tokens
    assert their_rows[4:].tobytes() == rows[4:].tobytes()  # the special tokens are no words


def test_mistakes_are_told(saved_run: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    for arguments, message in (
        (("--run", saved_run, "--output", exported["word2vec"]), "exists; give another --output"),
        (("--run", tmp_path, "--output", tmp_path / "x"), "is not a run directory: it has no config.yaml"),
        (("--run", saved_run, "--output", tmp_path / "no" / "x"), "cannot be written: No such file or directory"),
    ):
        finished = run("dist_s2s.export", "--side", "source", *arguments, status=2)
        assert message in finished.errors[0]
        assert finished.errors[0].count("\n") == 1
