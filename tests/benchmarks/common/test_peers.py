"""Environments of other systems: made once, and told when they cannot be."""

import sys
from pathlib import Path

import pytest

from common import peers
from common.peers import Peer, is_complete, python_of

PEER = Peer("theirs", ("torch==2.13.0", "theirs==1.0"))


def finish(folder: Path, requirements: str) -> None:
    (folder / "theirs" / "bin").mkdir(parents=True, exist_ok=True)
    (folder / "theirs" / "bin" / "python").touch()
    (folder / "theirs" / "finished").write_text(requirements, encoding="utf-8")


def test_a_complete_environment_is_not_made_again(tmp_path: Path) -> None:
    finish(tmp_path, "torch==2.13.0\ntheirs==1.0")
    assert python_of(PEER, tmp_path) == str(tmp_path / "theirs" / "bin" / "python")


def test_other_requirements_are_not_complete(tmp_path: Path) -> None:
    assert not is_complete(PEER, tmp_path)
    finish(tmp_path, "torch==2.13.0\ntheirs==0.9")
    assert not is_complete(PEER, tmp_path)


def test_an_environment_whose_interpreter_is_gone_is_not_complete(tmp_path: Path) -> None:
    finish(tmp_path, "torch==2.13.0\ntheirs==1.0")
    (tmp_path / "theirs" / "bin" / "python").unlink()
    assert not is_complete(PEER, tmp_path)


def test_a_failure_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(OSError, match="no-python"):
        python_of(PEER, tmp_path)
    monkeypatch.undo()
    with pytest.raises(SystemExit, match=r"(?s)failed:.*no such words"):
        peers._run([sys.executable, "-c", "raise SystemExit('no such words')"])


def test_programs_find_the_benchmarks_and_the_library() -> None:
    paths = peers.environment_for_programs()["PYTHONPATH"].split(":")
    assert (Path(paths[0]) / "common" / "peers.py").is_file()
    assert (Path(paths[1]) / "dist_s2s").is_dir()
