"""`dist-s2s align` on files of vectors and on a run, and what it says of those that will not do."""

import json
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dist_s2s import UserError
from dist_s2s.align import _check, _parser
from dist_s2s.analysis.alignment import vectors
from dist_s2s.analysis.alignment.aligning import align as align_sides
from dist_s2s.analysis.alignment.anchors import Settings
from dist_s2s.analysis.alignment.vectors import WordVectors
from dist_s2s.analysis.rows import TableRows
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import read_manifest
from dist_s2s.storage.publishing import MANIFEST
from dist_s2s.text.side import SideSettings, TextSide
from dist_s2s.text.vectors.matching import Coverage, Matcher
from dist_s2s.text.vectors.reading import VectorFile
from dist_s2s.text.vectors.writing import write_word2vec
from tests.commands import Finished, run
from tests.sharded.reference import random_rows

WORDS, D = 60, 5
SOURCE = [f"s{number}" for number in range(WORDS)]
TARGET = [f"t{number}" for number in range(WORDS)]
ALONE = Ranks.alone()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors, the same ones rotated, moved and longer, and a dictionary."""
    folder = tmp_path_factory.mktemp("vectors")
    rows = random_rows((WORDS, D), seed=1)
    rotation = torch.linalg.qr(random_rows((D, D), seed=2)).Q
    rows /= rows.norm(dim=1, keepdim=True)
    write_word2vec(folder / "a.vec", SOURCE, D, [rows.numpy().astype(np.float32)])
    other = 3 * (rows @ rotation + 0.5)
    write_word2vec(folder / "b.vec", TARGET, D, [other.numpy().astype(np.float32)])
    pairs = "".join(f"s{number}\tt{number}\n" for number in range(WORDS))
    (folder / "d.txt").write_text(pairs + "s1\tunknown\n", encoding="utf-8")
    return folder


def align(folder: Path, *options: object, status: int = 0, ranks: int = 1) -> Finished:
    return run("dist_s2s.align", folder / "a.vec", folder / "b.vec", *options, status=status, ranks=ranks)


def test_files_on_two_ranks(folder: Path, tmp_path: Path) -> None:
    outputs = {name: tmp_path / name for name in ("save_mapping", "save_mapped", "save_shared", "induced", "json")}
    options = [word for name, file in outputs.items() for word in (f"--{name}", file)]
    done = align(folder, "--dictionary", folder / "d.txt", "--refine", 1, *options, ranks=2)
    assert "60 of 61 pairs found; 1 with an unknown word: in line 61 'unknown' has no target vector" in done.errors[0]
    assert "P@1" in done.output
    assert done.outputs[1] == ""
    found = json.loads(outputs["json"].read_text(encoding="utf-8"))
    assert [row["mapping"] for row in found["scores"]] == [
        "no mapping",
        *["Procrustes"] * 2,
        *["refined"] * 2,
        "chance",
    ]
    assert (found["training_pairs"], found["test_words"]) == (48, 12)
    assert [row["P@1"]["value"] for row in found["scores"][1:5]] == [1] * 4
    assert found["scores"][-1]["P@1"]["value"] == pytest.approx(1 / WORDS)
    induced = [line.split("\t") for line in outputs["induced"].read_text(encoding="utf-8").splitlines()]
    assert len(induced) > WORDS * 0.9
    assert all(source[1:] == target[1:] for source, target, _ in induced)
    file, target = VectorFile(outputs["save_mapped"]), read(folder / "b.vec")
    assert [record.word.decode() for record in file.records()] == SOURCE
    mapped = read(outputs["save_mapped"])
    assert np.abs(mapped - target).max() < 0.7 < np.linalg.norm(target, axis=1).min()
    one, other = (read(outputs["save_shared"] / f"{side}.vec") for side in ("source", "target"))
    assert np.abs(np.linalg.norm(other, axis=1) - 1).max() < 1e-5
    assert ((one @ other.T).argmax(1) == np.arange(WORDS)).all()  # plain cosine finds what align has found
    assert list(load_file(outputs["save_mapping"])) == ["mapping", "target_mean", "target_scale"]
    again = tmp_path / "again.json"
    align(folder, "--mapping", outputs["save_mapping"], "--test", folder / "d.txt", "--json", again)
    scores = json.loads(again.read_text(encoding="utf-8"))
    assert scores["mean_similarity"] == pytest.approx(found["mean_similarity"], abs=1e-6)
    assert scores["test_words"] == WORDS
    assert scores["scores"][2]["P@1"]["value"] > 0.95


def read(path: Path) -> np.ndarray:
    file = VectorFile(path)
    return file.parse(list(file.records()))


def test_files_may_have_the_names_of_sides(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in (("source", "a.vec"), ("target", "b.vec")):
        shutil.copy(folder / file, name)
    opened = [
        WordVectors.open(name, "source", WORDS, ALONE) for name in ("source", "target", str(Path.cwd() / "source"))
    ]
    assert [side.words for side in opened] == [SOURCE, TARGET, SOURCE]
    for name in (".:source", f"{tmp_path}:target"):
        with pytest.raises(UserError, match="is not a run directory"):
            WordVectors.open(name, "source", WORDS, ALONE)


@pytest.mark.parametrize("seed", ["-1", str(2**63), str(2**64), "9" * 5000, "1.5", "x", ""])
def test_seeds_that_no_generator_takes(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--seed", seed)
    assert f"--seed: must be a whole number from 0 to {2**63 - 1}, but is '{seed}'" in capsys.readouterr().err
    assert [parse("--seed", text).seed for text in ("0", "7", str(2**63 - 1))] == [0, 7, 2**63 - 1]


@pytest.mark.parametrize(
    ("words", "ignored"),
    [
        ("--mapping m --refine 5", "refine"),
        ("--mapping m --patience 50", "patience"),
        ("--mapping m --test t --test_share 0.2", "test_share"),
        ("--mapping m --learning_words 9", "learning_words"),
        ("--refine 0", "refine"),
        ("--start frequency --refine 1", "refine"),
        ("--test t --test_share 0", "test_share"),
        ("--dictionary d --patience 1", "patience"),
        ("--dictionary d --test t --test_share 0.2", "test_share"),
        ("--dictionary d --refine 0 --learning_words 9", "learning_words"),
        ("--attention r --test_share 0.1", "test_share"),
        ("--attention r --patience 9", "patience"),
        ("--dictionary d --parallel p", "parallel"),
        ("--attention r --parallel p --test t --refine 3 --learning_words 9", ""),
        ("--dictionary d --test_share 0.1 --refine 3 --learning_words 9 --seed 1", ""),
        ("--dictionary d --test t --refine 0", ""),
        ("--start identical --test t --patience 1 --learning_words 9", ""),
        ("--mapping m --test t --seed 1 --words 9", ""),
    ],
)
def test_options_that_would_be_ignored(words: str, ignored: str) -> None:
    if not ignored:
        _check(parse(*words.split()))
        return
    with pytest.raises(UserError, match=f"^--{ignored} is used only with.*: leave it out$"):
        _check(parse(*words.split()))


def test_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    _parser("align").print_help()
    told = re.findall(r"\(default: ([\d.,]+)\)", " ".join(capsys.readouterr().out.split()))
    own = Settings()
    expected = (own.test_share, 200_000, own.learning_words, own.refine, own.patience, own.seed)
    assert told == [f"{value:,}" for value in expected]


def test_a_share_that_holds_out_no_word(folder: Path) -> None:
    said: list[str] = []
    settings = Settings(str(folder / "d.txt"), test_share=0.001, refine=0)
    source, target = (WordVectors.open(str(folder / name), "source", WORDS, ALONE) for name in ("a.vec", "b.vec"))
    answer = align_sides(source, target, settings, ALONE, said.append).answer
    assert (answer["training_pairs"], answer["test_words"], answer["scores"]) == (WORDS, 0, [])
    assert "no word is left to test with: 0.001 of the dictionary's 60 source words is less than one" in said[-1]


def parse(*words: str) -> Namespace:
    return _parser("align").parse_args(["a", "b", *words])


def test_the_tables_of_a_run(saved_run: Path, tmp_path: Path) -> None:
    mapped = tmp_path / "mapped.vec"
    options = ("--start", "frequency", "--patience", 0, "--save_mapped", mapped)
    done = run("dist_s2s.align", saved_run, f"{saved_run}:target", *options, status=2)
    assert "argument --patience: must be at least 1, but is 0" in done.errors[0]
    done = run("dist_s2s.align", saved_run, f"{saved_run}:target", *options[:2], "--patience", 1, *options[4:])
    assert "self-learning begins with " in done.errors[0]
    tokens = (saved_run / "source_vocabulary.txt").read_text(encoding="utf-8").splitlines()
    assert f"{len(tokens) - 4} and " in done.output
    coverage = Coverage(tokens)
    coverage.take(Matcher(tokens).match(record.word for record in VectorFile(mapped).records()))
    assert coverage.missing == []


def test_what_a_run_looks_at_is_a_dictionary(saved_run: Path, tmp_path: Path) -> None:
    induced = tmp_path / "induced.tsv"
    options = ("--attention", saved_run, "--refine", 0, "--induced", induced)
    done = run("dist_s2s.align", saved_run, saved_run, *options)
    assert "looks at the words of 48 sentences" in done.errors[0]
    found = [line.split("\t") for line in induced.read_text(encoding="utf-8").splitlines()]
    assert found
    assert len({source for source, _, _ in found}) == len({target for _, target, _ in found}) == len(found)
    assert all(0 < float(score) <= 1 for _, _, score in found)


def test_words_of_several_pieces_are_their_means(folder: Path) -> None:
    texts = ["der hundehalter und der hund", "die halterung hält den halter", "ein hund und eine hündin"] * 4
    side = TextSide.build(SideSettings("bpe", max_size=40, byte_fallback=False), texts)
    tokens = list(side.vocabulary.tokens)
    rows = random_rows((len(tokens), D), seed=3)
    table = vectors._make_table(len(tokens), D, ALONE)
    table.weight.detach().copy_(rows)
    vocabulary = WordVectors("r", tokens, TableRows.of_table(table), side.vocabulary.num_reserved, _side=side)
    found = vocabulary.with_words(["hundeleine", "hund", "hundeleine", "犬"], ALONE)
    pieces = found.pieces["hundeleine"]
    assert len(pieces.ids) > 1
    assert found.words[: len(tokens)] == tokens
    [mean] = found.rows.fetch(torch.tensor([found.ids["hundeleine"]]))
    torch.testing.assert_close(mean, rows[list(pieces.ids)].mean(0).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.rows.fetch(torch.arange(len(tokens))), rows.double(), rtol=1e-6, atol=1e-6)
    files = WordVectors.open(str(folder / "a.vec"), "source", WORDS, ALONE)
    assert files.with_words(["hundeleine"], ALONE) is files


def test_a_manifest_that_vanishes_after_all_ranks_have_read_it(
    saved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_once(checkpoint: Path) -> dict[str, Any]:
        manifest = read_manifest(checkpoint)
        (checkpoint / MANIFEST).unlink()
        return manifest

    copied = tmp_path / "run"
    shutil.copytree(saved_run, copied)
    shutil.rmtree(copied / "checkpoints" / "step-1")  # lest it take the place of the one that vanishes
    monkeypatch.setattr(vectors, "read_manifest", read_once)
    opened = WordVectors.open(f"{copied}:target", "source", WORDS, ALONE)
    assert opened.words[opened.reserved :]
    with pytest.raises(UserError):
        WordVectors.open(f"{copied}:target", "source", WORDS, ALONE)


def test_mistakes_are_told(folder: Path, tmp_path: Path) -> None:
    swapped, mapping, other = tmp_path / "swapped.txt", tmp_path / "small", tmp_path / "other"
    lines = (folder / "d.txt").read_text(encoding="utf-8").splitlines()
    swapped.write_text("".join("\t".join(line.split("\t")[::-1]) + "\n" for line in lines), encoding="utf-8")
    zeros: Any = np.zeros((2, 2))
    save_file({"mapping": zeros, "target_mean": zeros[0], "target_scale": zeros[0]}, mapping)
    save_file({"weight": zeros}, other)
    (tmp_path / "c.vec").write_text("0 5\n", encoding="utf-8")
    for options, message in (
        (("--dictionary", swapped), "0 of 61 pairs found; 60 if the columns were swapped"),
        (("--dictionary", folder / "none"), "does not exist"),
        (("--dictionary", folder / "d.txt", "--start", "identical"), "each say what to begin with: give one of them"),
        (("--dictionary", folder / "d.txt", "--test_share", 1), "--test_share must be in [0, 1), but is 1"),
        (("--dictionary", folder / "d.txt", "--test", folder / "d.txt"), "no pair is left to learn from"),
        (("--refine", -1), "--refine must be at least 0, but is -1"),
        (("--refine", 2), "--refine is used only with --dictionary or --attention: leave it out"),
        (("--start", "identical"), "have no word in common; choose another --start"),
        (("--mapping", mapping), "maps 2 x 2, but the vectors have 5 numbers"),
        (("--mapping", other), "is no mapping that `align` has saved: it lacks mapping, target_mean, target_scale"),
        (("--mapping", folder / "d.txt"), "cannot be read as a mapping"),
        (("--save_mapped", tmp_path / "no" / "x"), "make it first"),
    ):
        error = align(folder, *options, status=2).errors[0].splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
    for name, message in (("c.vec", "has no words"), ("d.vec", "does not exist"), ("", "is not a run directory")):
        assert message in run("dist_s2s.align", folder / "a.vec", tmp_path / name, status=2).errors[0]
