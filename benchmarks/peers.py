"""Environments of other systems, which cannot share ours. They are made once, under the user's cache directory."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# features.py tells why. rich and matplotlib are for the benchmarks themselves.
_TORCHREC = ("torch==2.13.0", "numpy", "torchrec==1.8.0", "fbgemm-gpu-cpu==1.8.0", "rich", "matplotlib")
_IS_COMPLETE = """
import sys
from importlib.metadata import distributions
found = {d.name.lower().replace("_", "-"): d.version.partition("+")[0] for d in distributions()}
wanted = {"torch": "2.13.0", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}
is_complete = wanted.items() <= found.items() and {"rich", "matplotlib"} <= found.keys()
sys.exit(not is_complete or "fbgemm-gpu" in found)
"""


def default_folder() -> Path:
    """Where environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dist_s2s" / "peers"


def has_torchrec(folder: Path) -> bool:
    """Whether ``folder``/torchrec is there, and complete."""
    python = _python(folder)
    return python.exists() and subprocess.run([str(python), "-c", _IS_COMPLETE]).returncode == 0


def torchrec_python(folder: Path) -> str:
    """The interpreter of ``folder``/torchrec, which is made, by venv and pip, unless it is there.

    Raises subprocess.CalledProcessError if pip fails.
    """
    python = str(_python(folder))
    if has_torchrec(folder):
        return python
    print(f"making {folder / 'torchrec'}, which takes minutes", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "torchrec")], check=True)
    pip = [python, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", *_TORCHREC], check=True)
    subprocess.run([*pip, "uninstall", "--yes", "fbgemm-gpu", "fbgemm-gpu-cpu"], check=True)
    subprocess.run([*pip, "install", "--no-deps", "fbgemm-gpu-cpu==1.8.0"], check=True)
    subprocess.run([python, "-c", _IS_COMPLETE], check=True)
    return python


def _python(folder: Path) -> Path:
    return folder / "torchrec" / "bin" / "python"


def run_again(python: str, script: str, arguments: Sequence[str]) -> int:
    """Runs a benchmark under another interpreter, with this repository's dist_s2s; returns its exit status."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([python, "-W", "ignore", script, *arguments], env=environment).returncode
