"""Whose a run directory is, and whether training goes on in it."""

import json
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.config import Config, load_config
from dist_s2s.storage import run_directory
from dist_s2s.storage.lock import RunLock
from dist_s2s.storage.run_directory import checkpoint_to_resume


def claim(config: Config, checkpoint: Path | None) -> None:
    with RunLock(config.run_dir) as lock:
        run_directory.claim(config, checkpoint, lock, {}, {})


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "run"


def configured(run_dir: Path, **overrides: object) -> Config:
    return load_config(None, {"run_dir": str(run_dir)} | {f"training.{key}": str(overrides[key]) for key in overrides})


def add_checkpoint(run_dir: Path, name: str) -> Path:
    path = run_dir / "checkpoints" / name
    path.mkdir(parents=True)
    step = int("".join(filter(str.isdigit, name)))
    manifest = {"format": 1, "step": step, "progress": {}, "tables": {}, "scalars": {}, "sha256": {}}
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


def test_new_and_empty_directories_start_anew(run_dir: Path) -> None:
    assert checkpoint_to_resume(configured(run_dir)) is None
    assert not run_dir.exists()  # asking leaves no trace
    run_dir.mkdir(parents=True)
    assert checkpoint_to_resume(configured(run_dir)) is None


def test_newest_complete_checkpoint_is_resumed(run_dir: Path) -> None:
    config = configured(run_dir)
    claim(config, None)
    assert checkpoint_to_resume(config) is None
    add_checkpoint(run_dir, "step-9")
    newest = add_checkpoint(run_dir, "step-10")
    add_checkpoint(run_dir, ".step-11.partial")
    add_checkpoint(run_dir, "step-12.old")
    (run_dir / "checkpoints" / "step-13").mkdir()  # without a manifest
    assert checkpoint_to_resume(config) == newest


def test_other_configuration_is_refused_naming_the_keys(run_dir: Path) -> None:
    claim(configured(run_dir, seed=1), None)
    add_checkpoint(run_dir, "step-9")
    with pytest.raises(UserError, match=r"another configuration") as caught:
        checkpoint_to_resume(configured(run_dir, seed=2, learning_rate=0.5))
    message = str(caught.value)
    assert str(run_dir) in message
    assert "training.seed: 1 there, 2 here" in message
    assert "training.learning_rate: 0.002 there, 0.5 here" in message
    assert "--training.resume never" in message
    assert "\n" not in message


def test_limits_and_intervals_may_change(run_dir: Path) -> None:
    claim(configured(run_dir, max_steps=5), None)
    newest = add_checkpoint(run_dir, "step-5")
    assert checkpoint_to_resume(configured(run_dir, max_steps=50, log_every=3, patience=1)) == newest


def test_directory_that_is_not_a_run_is_refused(run_dir: Path) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match="not a run directory") as caught:
        checkpoint_to_resume(configured(run_dir))
    assert str(run_dir) in str(caught.value)
    with pytest.raises(UserError, match="not a run directory"):
        checkpoint_to_resume(configured(run_dir / "thesis.tex"))


def test_never_moves_the_old_runs_aside(run_dir: Path) -> None:
    for seed in (1, 2, 3):
        config = configured(run_dir, seed=seed, resume="never")
        assert checkpoint_to_resume(config) is None
        claim(config, None)
        add_checkpoint(run_dir, f"step-{seed}")
    seeds = {path.name: load_config(path / "config.yaml", {}).training.seed for path in run_dir.parent.iterdir()}
    assert seeds == {"run": 3, "run.1": 1, "run.2": 2}
    assert (run_dir.parent / "run.1" / "checkpoints" / "step-1").is_dir()


def test_claim_writes_the_resolved_configuration_and_keeps_the_rest(run_dir: Path) -> None:
    claim(configured(run_dir, max_steps=5), None)
    newest = add_checkpoint(run_dir, "step-5")
    changed = configured(run_dir, max_steps=50)
    claim(changed, None)
    assert load_config(run_dir / "config.yaml", {}) == changed
    assert checkpoint_to_resume(changed) == newest


def test_a_given_checkpoint_is_resumed(run_dir: Path, tmp_path: Path) -> None:
    claim(configured(run_dir), None)
    older = add_checkpoint(run_dir, "step-9")
    add_checkpoint(run_dir, "step-10")
    assert checkpoint_to_resume(configured(run_dir, resume=older)) == older
    assert checkpoint_to_resume(configured(tmp_path / "new", resume=older)) == older
    with pytest.raises(UserError, match=r"is not a checkpoint: it has no manifest\.json"):
        checkpoint_to_resume(configured(run_dir, resume=run_dir))


def test_going_on_from_an_older_checkpoint_moves_the_later_ones_aside(run_dir: Path) -> None:
    claim(configured(run_dir), None)
    older = add_checkpoint(run_dir, "step-9")
    add_checkpoint(run_dir, "step-10")
    config = configured(run_dir, resume=older)
    claim(config, checkpoint_to_resume(config))
    assert load_config(run_dir / "config.yaml", {}).training.resume == "auto"  # by which it goes on from here
    assert {path.name for path in older.parent.iterdir()} == {"step-9", "step-10.1"}
    assert checkpoint_to_resume(configured(run_dir)) == older


def test_a_link_stays_one_when_its_run_is_moved_aside(run_dir: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "mine"
    disk.mkdir(parents=True)
    run_dir.parent.mkdir()
    run_dir.symlink_to(disk)
    claim(configured(run_dir, seed=1), None)
    claim(configured(run_dir, seed=2, resume="never"), None)
    assert run_dir.is_symlink()
    seeds = [load_config(each / "config.yaml", {}).training.seed for each in (disk, disk.with_name("mine.1"))]
    assert seeds == [2, 1]


def test_the_current_directory_is_not_moved_aside(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(configured(run_dir), None)
    monkeypatch.chdir(run_dir)
    with pytest.raises(UserError, match=r"the run in \. cannot be moved aside from within it; go to another folder"):
        claim(configured(Path(), resume="never"), None)
