"""What a command says in an environment that has the library alone."""

import os
import subprocess
import sys

import pytest

from dist_s2s.cli.extras import TRAIN
from dist_s2s.cli.main import ON_RANKS
from tests.commands import ROOT

# In a child process: importing these modules fails, as it does where they are not installed.
BLOCK = """
import runpy, sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = {argv!r}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def in_bare_environment(module: str, argv: list[str], missing: tuple[str, ...] = TRAIN) -> tuple[int, str, str]:
    code = BLOCK.format(missing=missing, argv=argv, module=module)
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return child.returncode, child.stdout, child.stderr


@pytest.mark.parametrize("name", ON_RANKS)  # estimate needs torch and numpy alone
def test_the_extra_that_is_missing_is_named_in_one_line(name: str) -> None:
    expected = f"needs the extra \"train\": pip install 'dist-s2s[train]' (missing modules: {', '.join(TRAIN)})"
    assert in_bare_environment("dist_s2s.cli.main", ["dist-s2s", name]) == (
        2,
        "",
        f"error: dist-s2s {name} {expected}\n",
    )
    own = in_bare_environment(f"dist_s2s.{name}", [name])
    assert own == (2, "", f"error: python -m dist_s2s.{name} {expected}\n")


def test_a_single_module_that_is_missing() -> None:
    status, _, errors = in_bare_environment("dist_s2s.cli.main", ["dist-s2s", "train"], ("tensorboard",))
    assert (status, errors.endswith("(missing module: tensorboard)\n")) == (2, True)


def test_the_list_of_commands_and_the_library_need_no_extra() -> None:
    assert in_bare_environment("dist_s2s.cli.main", ["dist-s2s", "--help"])[0] == 0
    assert in_bare_environment("dist_s2s.sharded.__init__", ["library"])[::2] == (0, "")
