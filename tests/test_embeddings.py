"""`dist-s2s embeddings` on a trained run, and what it says of words and rows that will not do."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dist_s2s.storage.checkpoint import read_manifest
from dist_s2s.storage.durable_files import sha256_of, write_checked_json
from dist_s2s.storage.publishing import MANIFEST
from dist_s2s.translation.runs.load import best_checkpoint
from tests.commands import Finished, run

SPECIALS = 4


@pytest.fixture(scope="module")
def rows(saved_run: Path) -> np.ndarray:
    """The whole table of the target side, in which rank r of 2 has every second row from r on."""
    checkpoint = best_checkpoint(saved_run)
    assert checkpoint is not None
    shards = [load_file(checkpoint / f"target_table-{rank}-of-2.safetensors")["weight"] for rank in range(2)]
    whole = np.empty((sum(map(len, shards)), shards[0].shape[1]))
    for rank, shard in enumerate(shards):
        whole[rank::2] = shard
    return whole


@pytest.fixture(scope="module")
def tokens(saved_run: Path) -> list[str]:
    return (saved_run / "target_vocabulary.txt").read_text(encoding="utf-8").splitlines()


def ask(saved_run: Path, *question: object, status: int = 0) -> Finished:
    return run("dist_s2s.embeddings", "--run", saved_run, "--side", "target", *question, status=status)


def figures(saved_run: Path, file: Path, question: str, *words: object) -> dict[str, Any]:
    ask(saved_run, question, *words, "--json", file)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))[question]
    return found


def cosines(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        found: np.ndarray = rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector)
    return found


def test_statistics(saved_run: Path, rows: np.ndarray, tokens: list[str], tmp_path: Path) -> None:
    found = figures(saved_run, tmp_path / "stats.json", "stats")
    assert (found["num_rows"], found["dim"]) == rows.shape
    assert found["dead_words"] == ["<pad>"]
    assert found["std"] == pytest.approx(rows.std(), abs=1e-6)
    assert found["norms"]["max"] == pytest.approx(np.linalg.norm(rows, axis=1).max())
    assert found["frequency_correlation"] is None
    shown = ask(saved_run, "stats").output
    assert f"{found['effective_rank']:.2f} of {rows.shape[1]}" in shown
    assert "1: <pad>" in shown
    assert "no word has yet" not in shown


def test_neighbours(saved_run: Path, rows: np.ndarray, tokens: list[str], tmp_path: Path) -> None:
    scores = cosines(rows, rows[tokens.index("cat")])
    others = [index for index in range(SPECIALS, len(tokens)) if tokens[index] != "cat"]
    expected = sorted(others, key=lambda index: -scores[index])
    found = figures(saved_run, tmp_path / "near.json", "nearest", "cat", "--number", 1000)["neighbours"][0]
    assert [each["word"] for each in found] == [tokens[index] for index in expected]
    assert [each["score"] for each in found] == pytest.approx(scores[expected].tolist(), abs=1e-6)
    shown = ask(saved_run, "nearest", "cat", "--number", 1000).output
    assert f"no more than {len(others)} words can be neighbours" in shown
    by_csls = figures(saved_run, tmp_path / "csls.json", "nearest", "cat", "--csls", "--number", 3)
    assert len(by_csls["neighbours"][0]) == 3


def test_a_word_of_several_tokens_is_their_mean(
    saved_run: Path, rows: np.ndarray, tokens: list[str], tmp_path: Path
) -> None:
    found = figures(saved_run, tmp_path / "similar.json", "similar", "a  cat", "tree")
    mean = rows[[tokens.index("a"), tokens.index("cat")]].mean(0)
    assert found["cosines"][0][1] == pytest.approx(cosines(rows, mean)[tokens.index("tree")], abs=1e-6)
    shown = ask(saved_run, "similar", "a  cat", "tree").output
    assert shown.startswith("a cat is 2 pieces: a cat; their mean stands for it\n")


@pytest.mark.parametrize("method", ["add", "multiply"])
def test_analogies(method: str, saved_run: Path, rows: np.ndarray, tokens: list[str], tmp_path: Path) -> None:
    words = ("cat", "tree", "moon")
    ids = [tokens.index(word) for word in words]
    a, b, c = (rows[index] / np.linalg.norm(rows[index]) for index in ids)
    scores = cosines(rows, b - a + c)
    if method == "multiply":
        of_a, of_b, of_c = ((cosines(rows, vector) + 1) / 2 for vector in (a, b, c))
        scores = of_b * of_c / (of_a + 1e-3)
    best = max(set(range(SPECIALS, len(tokens))) - set(ids), key=lambda index: scores[index])
    found = figures(saved_run, tmp_path / "analogy.json", "analogy", *words, "--method", method)
    assert found["answers"][0] == {"word": tokens[best], "id": best, "score": pytest.approx(scores[best], abs=1e-6)}


def test_rows_that_are_not_finite(saved_run: Path, tokens: list[str], tmp_path: Path) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(saved_run, damaged)
    checkpoint = best_checkpoint(damaged)
    assert checkpoint is not None
    file = checkpoint / "target_table-0-of-2.safetensors"
    tensors = load_file(file)
    tensors["weight"][tokens.index("cat") // 2] = np.nan
    tensors["weight"][0] = 0
    name = tokens[tokens.index("cat") // 2 * 2]
    save_file(tensors, file)
    manifest = read_manifest(checkpoint)
    manifest["sha256"][file.name] = sha256_of(file)
    write_checked_json(checkpoint / MANIFEST, manifest)
    found = figures(damaged, tmp_path / "stats.json", "stats")
    assert (found["non_finite"], found["non_finite_words"]) == (1, [name])
    assert np.isfinite(found["isotropy"])
    other = next(token for token in tokens[SPECIALS:] if token != name)
    near = figures(damaged, tmp_path / "near.json", "nearest", other, "--number", 1000)["neighbours"][0]
    assert len(near) == len(tokens) - SPECIALS - 2
    errors = ask(damaged, "nearest", name, status=2).errors[0]
    assert errors == f"error: the vector of {name} has a number that is not finite; look at another checkpoint\n"


def test_mistakes_are_told(saved_run: Path, tmp_path: Path) -> None:
    for question, message in (
        (("nearest", "catt"), "'catt' is not in the target vocabulary, which has "),
        (("nearest", "xyzzy"), "no token is spelled like it"),
        (("nearest", "cat", "<unk>"), "<unk> is a special token of the target vocabulary, not a word"),
        (("nearest", ""), "'' is not in the target vocabulary"),
        (("nearest", "cat", "--number", 0), "argument --number: must be at least 1, but is 0"),
        (("--json", tmp_path / "no" / "x", "stats"), "make it first"),
        (("--run", tmp_path, "stats"), "is not a run directory"),
    ):
        assert message in ask(saved_run, *question, status=2).errors[0]
    empty = tmp_path / "empty"
    shutil.copytree(saved_run, empty, ignore=shutil.ignore_patterns("step-*"))
    assert "has no checkpoint yet" in ask(empty, "stats", status=2).errors[0]
    assert "--run RUN is needed" in run("dist_s2s.embeddings", "stats", status=2).errors[0]
