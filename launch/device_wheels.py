"""Wheels for a machine without a network: downloaded beforehand, and put beside its own packages there.

Needs nothing but Python's standard library and pip. The machine's packages are left as they are: wheels go into a
folder that is named in PYTHONPATH. A virtual environment would not do: if the machine's Python is in one,
an environment made from it does not see its packages.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Which Python there will be is not known. The oldest is the one that pyproject.toml asks for.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# Modules that the machine may lack, and what to install for each of them.
NEEDED = {
    "pydantic": ("pydantic", "pydantic_core", "annotated-types", "typing_extensions", "typing-inspection"),
    "rich": ("rich", "markdown-it-py", "mdurl", "Pygments"),
    "yaml": ("PyYAML",),
    "regex": ("regex",),
    "pytest_timeout": ("pytest-timeout",),
}


def download(folder: Path) -> None:
    """Download the wheels of all ``NEEDED`` for every one of ``PYTHONS``, in the versions of constraints.txt.

    Raises:
        subprocess.CalledProcessError: pip has failed, and has said why.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0]: line for line in lines if "==" in line}
    wanted = [pinned[name] for names in NEEDED.values() for name in names]
    platforms = [argument for platform in PLATFORMS for argument in ("--platform", platform)]
    for version in PYTHONS:
        where = ["--only-binary=:all:", "--python-version", version, "--implementation", "cp", *platforms]
        _pip("download", "--no-deps", "--dest", str(folder), *where, *wanted)


def install(wheels: Path, site: Path) -> list[str]:
    """Install what cannot be imported from ``wheels`` into ``site``; return the names of those distributions.

    Raises:
        subprocess.CalledProcessError: pip has failed; its output says why.
    """
    missing = [name for module, names in NEEDED.items() if find_spec(module) is None for name in names]
    if missing:
        offline = ["--no-index", "--no-deps", "--find-links", str(wheels)]
        _pip("install", "--no-compile", "--target", str(site), *offline, *missing)
    return missing


def _pip(command: str, *arguments: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", command, *quiet, *arguments]
    subprocess.run(pip, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
