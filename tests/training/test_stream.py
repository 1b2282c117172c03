"""Training on a stream by the real command: words that come and go, stops, other numbers of ranks, pipes, errors."""

import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from dist_s2s.storage.recorded_vectors import SIDES, RecordedVectors, vectors_file
from dist_s2s.text.dynamic_vocabulary import DynamicVocabulary, load_vocabulary
from dist_s2s.translation.runs.load import best_checkpoint
from tests.commands import Command, run
from tests.test_train import losses, metrics
from tests.toy_corpus import PAIRS, options

CHUNK = 24
OLD = [pair for pair in PAIRS if "月亮" not in pair[0]]
NEW = [(source.replace("猫", "龙"), target.replace("cat", "dragon")) for source, target in PAIRS if "猫" in source]
SUBJECTS = [OLD[:CHUNK], OLD[-CHUNK:], (NEW * 2)[:CHUNK], NEW, OLD[:16]]
STREAM = "".join(f"{source}\t{target}\n" for pairs in SUBJECTS for source, target in pairs)
LINES = STREAM.splitlines(keepends=True)
NGRAMS = {"embedding__ngrams": 2, "embedding__ngram_rows": 97}


def arguments(stream: Path, corpus: Path, run_dir: Path, **overrides: object) -> list[str]:
    """Sizes of which the target's has no room for all words."""
    values: dict[str, object] = {
        "data__stream": stream,
        "data__vocabulary_update_every": CHUNK,
        "data__source_vocabulary_size": 30,
        "data__target_vocabulary_size": 13,
        "data__new_words": "pieces",
        "training__max_steps": "null",
        "training__max_epochs": 1,
        "training__validate_every": 4,
        "training__keep_checkpoints": 9,
        "training__record_vectors_every": 2,
        "training__precision": "fp64",
        "model__dropout": 0.0,
        "embedding__ngram_dropout": 0.0,
        **NGRAMS,
    }
    return options(corpus, run_dir, **(values | overrides))


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "pairs.tsv"
    path.write_text(STREAM, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def two_ranks(stream: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("two") / "run"
    finished = run("dist_s2s.train", *arguments(stream, corpus, run_dir), ranks=2)
    assert f"training pairs from the stream {stream}" in finished.output
    assert "the stream has ended" in finished.output
    return run_dir


def chunks(run_dir: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(run_dir) if "stream_pairs" in line]


def vocabulary(checkpoint: Path, side: str = "target") -> DynamicVocabulary:
    loaded = load_vocabulary(checkpoint / f"{side}_vocabulary.txt")
    assert isinstance(loaded, DynamicVocabulary)
    return loaded


def test_words_come_and_go(two_ranks: Path) -> None:
    lines = chunks(two_ranks)
    assert [line["stream_pairs"] for line in lines] == [CHUNK] * 4 + [len(LINES) - 4 * CHUNK]
    assert lines[0]["new_target_words"] == 9  # all ids but the special tokens
    assert sum(line["replaced_target_words"] for line in lines[1:]) >= 2
    assert sum(line["replaced_source_words"] for line in lines) == 0
    newest = list_checkpoints(two_ranks / "checkpoints")[-1]
    assert "dragon" in vocabulary(newest)
    assert not (two_ranks / "target_vocabulary.txt").exists()
    summary = json.loads((two_ranks / "summary.json").read_text(encoding="utf-8"))
    assert summary["tokens_per_second"] > 0
    assert summary["steps"] == read_manifest(newest)["step"] > 10


def test_four_ranks_take_the_same_course_as_two(two_ranks: Path, stream: Path, corpus: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run("dist_s2s.train", *arguments(stream, corpus, run_dir), ranks=4)
    assert losses(run_dir) == pytest.approx(losses(two_ranks), abs=1e-9)
    ours, theirs = (list_checkpoints(directory / "checkpoints") for directory in (run_dir, two_ranks))
    for mine, other in zip(ours, theirs, strict=True):
        for side in ("source", "target"):
            assert vocabulary(mine, side).to_text() == vocabulary(other, side).to_text()
    for side in SIDES:
        mine, other = (RecordedVectors.load(vectors_file(directory, side)) for directory in (run_dir, two_ranks))
        assert mine.words == other.words
        np.testing.assert_allclose(mine.rows, other.rows, rtol=0, atol=1e-6)
    assert len(mine.steps) > 5
    assert any(word.absent_after for word in mine.words)
    assert np.isnan(mine.rows).any()


def test_translate_uses_the_vocabulary_of_the_best_checkpoint(two_ranks: Path, tmp_path: Path) -> None:
    """Also where later checkpoints have another one; and a damaged one is refused."""
    copy = tmp_path / "run"
    shutil.copytree(two_ranks, copy)
    first, *_, last = list_checkpoints(copy / "checkpoints")
    assert vocabulary(first).tokens != vocabulary(last).tokens
    best = copy / "checkpoints" / f"step-{read_manifest(last)['progress']['best_step']}"
    sentence = PAIRS[0][0].encode()
    before = run("dist_s2s.translate", "--run", copy, stdin=sentence).output
    file = best / "target_vocabulary.txt"
    file.write_text(file.read_text(encoding="utf-8").replace("Anna", "Bert"), encoding="utf-8")
    errors = run("dist_s2s.translate", "--run", copy, stdin=sentence, status=2).errors[0]
    assert f"{file} is damaged" in errors
    assert before.strip()


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    two_ranks: Path, stream: Path, corpus: Path, tmp_path: Path
) -> None:
    """In the middle of the third chunk, whose words have been counted by then."""
    run_dir = tmp_path / "run"
    shutil.copytree(two_ranks, run_dir)
    stop = next(
        c for c in list_checkpoints(run_dir / "checkpoints") if read_manifest(c)["progress"]["stream_chunk"] == 2
    )
    assert read_manifest(stop)["progress"]["position"] > 0
    for checkpoint in list_checkpoints(run_dir / "checkpoints"):
        if read_manifest(checkpoint)["step"] > read_manifest(stop)["step"]:
            shutil.rmtree(checkpoint)
    run("dist_s2s.train", *arguments(stream, corpus, run_dir), ranks=2)
    ours, theirs = (list_checkpoints(d / "checkpoints") for d in (run_dir, two_ranks))
    assert [read_manifest(c)["sha256"] for c in ours] == [read_manifest(c)["sha256"] for c in theirs]
    assert losses(run_dir) == losses(two_ranks)
    for side in SIDES:
        assert vectors_file(run_dir, side).read_bytes() == vectors_file(two_ranks, side).read_bytes()


def test_a_pipe_is_read_as_it_is_written(two_ranks: Path, corpus: Path, tmp_path: Path) -> None:
    """A line at a time, with pauses; the run ends once the writer has gone."""
    pipe, run_dir = tmp_path / "pipe", tmp_path / "run"
    os.mkfifo(pipe)

    def feed() -> None:
        with open(pipe, "wb", buffering=0) as file:
            for number, line in enumerate(LINES):
                file.write(line.encode())
                if number % 40 == 39:
                    threading.Event().wait(0.1)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    run("dist_s2s.train", *arguments(pipe, corpus, run_dir))
    feeder.join()
    assert losses(run_dir) == pytest.approx(losses(two_ranks), abs=1e-9)


def test_a_file_may_grow_after_the_run_and_then_goes_on(corpus: Path, tmp_path: Path) -> None:
    path, run_dir = tmp_path / "pairs.tsv", tmp_path / "run"
    path.write_text("".join(LINES[:CHUNK]), encoding="utf-8")
    run("dist_s2s.train", *arguments(path, corpus, run_dir))
    steps = max(losses(run_dir))
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(LINES[CHUNK : 2 * CHUNK])
    finished = run("dist_s2s.train", *arguments(path, corpus, run_dir))
    assert "24 pairs of the stream, 0 dropped" in finished.output
    assert len(chunks(run_dir)) == 2
    assert max(losses(run_dir)) > steps
    path.write_text("".join(LINES[:3]), encoding="utf-8")
    errors = run("dist_s2s.train", *arguments(path, corpus, run_dir), status=2).errors[0]
    assert "is shorter than the" in errors


def test_a_quiet_stream_can_be_told_to_stop(corpus: Path, tmp_path: Path) -> None:
    path, run_dir = tmp_path / "pairs.tsv", tmp_path / "run"
    path.write_text("".join(LINES[:CHUNK]), encoding="utf-8")
    command = Command("dist_s2s.train", *arguments(path, corpus, run_dir, data__stream_wait=1000), ranks=2)
    command.wait_until(lambda: (run_dir / "metrics.jsonl").exists() and len(losses(run_dir)) > 2)
    command.signal(15)
    finished = command.wait(status=143)
    assert "and saved" in finished.output
    assert list_checkpoints(run_dir / "checkpoints")


def test_a_bad_line_ends_the_run_on_all_ranks(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(LINES[0] + "no tab\n", encoding="utf-8")
    errors = run("dist_s2s.train", *arguments(path, corpus, tmp_path / "run"), ranks=2, status=2).errors
    assert all(f"error: {path} line 2 has no tab: expected SOURCE<TAB>TARGET" in error for error in errors)


def test_its_words_are_exported_and_begin_another_run(two_ranks: Path, corpus: Path, tmp_path: Path) -> None:
    """The vocabularies are those of the checkpoint, since the run itself has none."""
    best = best_checkpoint(two_ranks)
    assert best is not None
    output = tmp_path / "vectors"
    finished = run("dist_s2s.export", "--run", two_ranks, "--side", "target", "--output", output)
    words = vocabulary(best).tokens
    assert finished.output.startswith(f"{len(words)} vectors of 12 numbers from {best} ")
    assert [line.split()[0] for line in output.read_text(encoding="utf-8").splitlines()[1:]] == list(words)
    settings = options(corpus, tmp_path / "run", training__init_from=two_ranks, training__max_steps=1, **NGRAMS)
    finished = run("dist_s2s.train", *settings)
    assert f"begins with {best}" in finished.output


def test_embeddings_knows_the_counts_of_a_stream(two_ranks: Path, tmp_path: Path) -> None:
    file = tmp_path / "stats.json"
    run("dist_s2s.embeddings", "--run", two_ranks, "--side", "target", "--json", file, "stats")
    stats = json.loads(file.read_text(encoding="utf-8"))["stats"]
    assert (stats["num_rows"], stats["free_rows"]) == (13, 0)
    assert -1 <= stats["frequency_correlation"] <= 1
    finished = run("dist_s2s.embeddings", "--run", two_ranks, "stats")
    assert re.search(r"that no word has yet .*\n.*dimension", finished.output)
