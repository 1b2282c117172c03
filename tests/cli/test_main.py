"""The console script: its list of commands, their names, and ranks on this machine."""

import sys
from pathlib import Path

import pytest

from dist_s2s import UserError, __version__
from dist_s2s.cli import main as console
from dist_s2s.cli.command_line import ON_RANKS, program
from dist_s2s.cli.main import COMMANDS
from tests.commands import ROOT, run

SCRIPT = "dist_s2s.cli.main"


def test_every_command_is_listed() -> None:
    files = {path.stem for path in (ROOT / "dist_s2s").glob("*.py")} - {"__init__"}
    assert set(COMMANDS) == files
    for arguments in ((), ("--help",)):
        lines = run(SCRIPT, *arguments).output.splitlines()
        assert lines[0] == "usage: dist-s2s COMMAND [ARGUMENT ...]"
        assert [line.split()[0] for line in lines[2 : 2 + len(COMMANDS)]] == list(COMMANDS)
    assert run(SCRIPT, "--version").output == f"dist-s2s {__version__}\n"


def test_a_command_goes_by_the_name_that_it_was_called() -> None:
    assert run(SCRIPT, "translate", "--help").output.startswith("usage: dist-s2s translate [-h]")
    assert run("dist_s2s.translate", "--help").output.startswith("usage: python -m dist_s2s.translate [-h]")
    assert run(SCRIPT, "train", "--help").output.startswith("usage: dist-s2s train [INPUT ...] [--minutes M]")


@pytest.mark.parametrize(
    ("name", "hint"), [("trian", "did you mean train?"), ("xyz", "dist-s2s --help lists the commands")]
)
def test_unknown_command_is_one_line(name: str, hint: str) -> None:
    assert run(SCRIPT, name, status=2).errors[0] == f"error: there is no command {name}; {hint}\n"


@pytest.mark.parametrize(("words", "rest"), [(["--ranks", "3", "a"], ["a"]), (["a", "--ranks=3"], ["a"])])
def test_ranks_start_torchrun_with_the_command(
    words: list[str], rest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr("dist_s2s.cli.torchrun.launch", lambda arguments: started.append(arguments) or 7)
    monkeypatch.setattr(sys, "argv", ["dist-s2s", "train", *words])
    with pytest.raises(SystemExit) as caught:
        console.main()
    assert caught.value.code == 7
    assert started == [["--standalone", "--nproc_per_node=3", "-m", "dist_s2s.train", *rest]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranks"], "--ranks must be a whole number, but is ''"),
        (["--ranks=two"], "--ranks must be a whole number, but is 'two'"),
        (["--ranks", "0"], "--ranks must be at least 1, but is 0"),
    ],
)
def test_impossible_ranks(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        console._take_ranks(words)
    assert str(caught.value) == message


def test_ranks_of_estimate_are_its_own(tmp_path: Path) -> None:
    shown = run(SCRIPT, "estimate", "--num_embeddings", 1000, "--embedding_dim", 8, "--ranks", 0, status=2)
    assert "argument --ranks: must be at least 1" in shown.errors[0]


def test_ranks_of_a_module_are_named_the_right_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not taken for a key of the configuration, or an argument that nobody knows."""
    for name in ON_RANKS:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--ranks=3"])
        with pytest.raises(UserError, match=f"write dist-s2s {name} --ranks N, or torchrun --nproc_per_node=N -m"):
            program(name)
    monkeypatch.setattr(sys, "argv", ["estimate.py", "--ranks=3"])
    assert program("estimate") == "python -m dist_s2s.estimate"


@pytest.mark.parametrize("name", sorted(set(console.COMMANDS) - set(ON_RANKS)))
def test_a_command_of_one_process_refuses_to_be_several(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert program(name) == f"python -m dist_s2s.{name}"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"dist-s2s {name} is for one process, but WORLD_SIZE is 2: start it"):
        program(name)
