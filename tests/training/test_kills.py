"""A run that is killed while it makes a directory its own can be read and resumed, whenever that is."""

import json
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.distributed import Ranks
from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest, save_progress
from dist_s2s.storage.lock import RunLock
from dist_s2s.storage.run_files import check_run
from dist_s2s.training.run import Start, prepare
from dist_s2s.translation.runs.load import load_translator
from tests.commands import run
from tests.kills import killed_at_every_change
from tests.toy_corpus import options

ALONE = Ranks.alone()
RUN = {"training__precision": "fp32", "training__max_steps": 4, "training__validate_every": 2}


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints step-2 and step-4."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    run("dist_s2s.train", *options(corpus, run_dir, **RUN))
    return run_dir


def configured(corpus: Path, run_dir: Path, **overrides: object) -> Config:
    words = options(corpus, run_dir, **RUN | overrides)
    return load_config(None, dict(word.removeprefix("--").split("=", 1) for word in words))


def begin_run(run_dir: Path, corpus: Path, overrides: dict[str, object]) -> Start:
    """Do what a training does before its first step; "{run}" in overrides is the run directory."""
    filled = {key: str(value).replace("{run}", str(run_dir)) for key, value in overrides.items()}
    config = configured(corpus, run_dir, **filled)
    with RunLock(config.run_dir) as lock:
        return prepare(config, ALONE, lock)


def forgets_the_best(start: Start) -> bool:
    assert start.checkpoint is not None
    return start.has_other_data or read_manifest(start.checkpoint)["progress"]["data"] != start.data_id


def names(run_dir: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run_dir / "checkpoints")]


def test_a_new_run(corpus: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.tsv"
    shutil.copyfile(corpus, mine)
    begin = partial(begin_run, corpus=mine, overrides={})
    killed = killed_at_every_change(begin, tmp_path / "nothing", tmp_path / "work")
    assert len(killed) > 10  # the directory, its lock, three files and two manifests
    mine.write_text("a b\tc d\n", encoding="utf-8")
    for run_dir in killed:
        if (run_dir / "config.yaml").exists():
            with pytest.raises(UserError, match="has no checkpoint yet"):
                load_translator(run_dir, ALONE)
        # What is left is no obstacle to a run of other vocabularies.
        start = begin_run(run_dir, mine, {})
        assert start.checkpoint is None
        assert check_run(run_dir)
        words = (run_dir / "source_vocabulary.txt").read_text(encoding="utf-8").splitlines()[4:]
        assert set(words) <= {"a", "b", "▁"}


def test_going_on_with_other_limits(corpus: Path, trained: Path, tmp_path: Path) -> None:
    more = {"training__max_steps": 6}
    seen = {}
    begin = partial(begin_run, corpus=corpus, overrides=more)
    for run_dir in killed_at_every_change(begin, trained, tmp_path / "work"):
        load_translator(run_dir, ALONE)
        limit = load_config(run_dir / "config.yaml", {}).training.max_steps
        is_sealed = isinstance(json.loads((run_dir / "run.json").read_text())["sha256"]["config.yaml"], str)
        seen[limit, is_sealed] = shutil.copytree(run_dir, tmp_path / "as it was" / run_dir.parent.name)
        for limits in (more, {}):  # the same command again, and the one before
            start = begin_run(run_dir, corpus, limits)
            assert start.checkpoint == run_dir / "checkpoints" / "step-4"
            assert not forgets_the_best(start)
    assert seen.keys() == {(4, True), (4, False), (6, False), (6, True)}
    output = run("dist_s2s.train", *options(corpus, seen[6, False], **RUN | more)).output
    assert "finished at step 6" in output


@pytest.mark.parametrize("name", ["config.yaml", "target_vocabulary.txt"])
def test_a_file_that_is_damaged_between_the_seals_is_refused(
    name: str, corpus: Path, trained: Path, tmp_path: Path
) -> None:
    begin = partial(begin_run, corpus=corpus, overrides={"training__max_steps": 6})
    for run_dir in killed_at_every_change(begin, trained, tmp_path / "work"):
        (run_dir / name).write_bytes((run_dir / name).read_bytes() + b"#\n")
        with pytest.raises(UserError, match=f"{name} is damaged or was edited"):
            load_translator(run_dir, ALONE)


def test_going_on_from_an_older_checkpoint(corpus: Path, trained: Path, tmp_path: Path) -> None:
    older: dict[str, object] = {"training__resume": "{run}/checkpoints/step-2"}
    begin = partial(begin_run, corpus=corpus, overrides=older)
    for run_dir in killed_at_every_change(begin, trained, tmp_path / "work"):
        load_translator(run_dir, ALONE)
        assert begin_run(run_dir, corpus, {}).checkpoint is not None
        assert begin_run(run_dir, corpus, older).checkpoint == run_dir / "checkpoints" / "step-2"
        assert names(run_dir) == ["step-2"]


def test_going_on_from_another_runs_checkpoint(corpus: Path, trained: Path, tmp_path: Path) -> None:
    """Its vocabularies come with it, so that no checkpoint of the directory's own run may stay."""
    fewer = tmp_path / "fewer.tsv"
    fewer.write_text("".join(corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:20]), encoding="utf-8")
    run("dist_s2s.train", *options(fewer, tmp_path / "mine", **RUN | {"data__train": fewer, "training__max_steps": 3}))
    for key in ("valid", "test", "train"):  # as if it had been trained on a corpus of the same name
        config = tmp_path / "mine" / "config.yaml"
        config.write_text(config.read_text(encoding="utf-8").replace(f"{key}: {fewer}", f"{key}: {corpus}"))
    (tmp_path / "mine" / "run.json").unlink()
    other: dict[str, object] = {"training__resume": trained / "checkpoints" / "step-2"}
    begin = partial(begin_run, corpus=corpus, overrides=other)
    found = set()
    for run_dir in killed_at_every_change(begin, tmp_path / "mine", tmp_path / "work"):
        found.add(bool(names(run_dir)))
        with nullcontext() if names(run_dir) else pytest.raises(UserError, match="has no checkpoint yet"):
            load_translator(run_dir, ALONE)
        assert begin_run(run_dir, corpus, other).checkpoint == trained / "checkpoints" / "step-2"
        assert names(run_dir) == []
    assert found == {True, False}


def test_starting_anew(corpus: Path, trained: Path, tmp_path: Path) -> None:
    anew: dict[str, object] = {"training__resume": "never", "training__seed": 5}
    begin = partial(begin_run, corpus=corpus, overrides=anew)
    for run_dir in killed_at_every_change(begin, trained, tmp_path / "work"):
        moved = run_dir.with_name("run.1")
        old = moved if moved.exists() else run_dir
        load_translator(old, ALONE)
        assert begin_run(run_dir, corpus, anew).checkpoint is None
        assert load_config(run_dir / "config.yaml", {}).training.seed == 5


def test_going_on_with_other_data(corpus: Path, tmp_path: Path) -> None:
    """A kill after the run knows the new data, but before it saves, does not bring the old best score back."""
    mine = tmp_path / "mine.tsv"
    shutil.copyfile(corpus, mine)
    run("dist_s2s.train", *options(mine, tmp_path / "trained", **RUN))
    mine.write_text(mine.read_text(encoding="utf-8").replace("cat", "dog"), encoding="utf-8")
    allowed: dict[str, object] = {"training__resume_with_other_data": True}
    begin = partial(begin_run, corpus=mine, overrides=allowed)
    data_before, is_refused = check_run(tmp_path / "trained"), []
    for run_dir in killed_at_every_change(begin, tmp_path / "trained", tmp_path / "work"):
        load_translator(run_dir, ALONE)
        is_refused.append(check_run(run_dir) == data_before)
        with pytest.raises(UserError, match="was trained on other data") if is_refused[-1] else nullcontext():
            assert forgets_the_best(begin_run(run_dir, mine, {}))
        assert forgets_the_best(begin_run(run_dir, mine, allowed))
    assert is_refused == sorted(is_refused, reverse=True)
    assert set(is_refused) == {True, False}
    outputs = [run("dist_s2s.train", *options(mine, run_dir, **RUN)).output for _ in range(2)]
    assert ["the best score so far no longer counts" in output for output in outputs] == [True, False]


def test_a_best_step_that_is_gone_no_longer_counts(corpus: Path, trained: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run")
    newest = run_dir / "checkpoints" / "step-4"
    save_progress(newest, read_manifest(newest)["progress"] | {"best_step": 3, "best_bleu": 100.0, "best_chrf": 100.0})
    run("dist_s2s.train", *options(corpus, run_dir, **RUN | {"training__max_steps": 6}))
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["best_step"] in (4, 6)  # step 4 is validated again
    assert summary["valid_bleu"] < 100


def test_progress_of_a_later_version_is_told(corpus: Path, trained: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run")
    newest = run_dir / "checkpoints" / "step-4"
    save_progress(newest, read_manifest(newest)["progress"] | {"mood": "good"})
    told = run("dist_s2s.train", *options(corpus, run_dir, **RUN | {"training__max_steps": 6}), status=2).errors[0]
    assert told == f"error: {newest} is of a later version, which this one cannot go on with: mood\n"
