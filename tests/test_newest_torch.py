"""The newest versions that pip finds: the library, the models and training pass their tests with them, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTED = ["tests/sharded", "tests/models", "tests/training", "tests/storage", "tests/distributed"]


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_newest_versions_work(tmp_path: Path) -> None:
    python = str(tmp_path / "newest" / "bin" / "python")
    run([sys.executable, "-m", "venv", str(tmp_path / "newest")])
    run([python, "-m", "pip", "-qq", "install", f"{ROOT}[train,dev,subwords]"])
    print(run([python, "-c", "import torch, numpy; print('torch', torch.__version__, 'numpy', numpy.__version__)"]))
    # The repository's files are what is tested, so that tests and library are of the same version.
    print(run([python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope", *TESTED]).splitlines()[-1])


def run(command: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, f"{' '.join(command)} failed:\n{finished.stdout[-5000:]}{finished.stderr[-5000:]}"
    return finished.stdout
