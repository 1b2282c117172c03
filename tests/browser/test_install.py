"""launch/browser.sh on machines that have Chromium, can install it, or cannot."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT

STUB = "exit 1"
SKIPPED = "no Chromium, so tests/browser will be skipped: "


# The programs of the machine, each with what it does; what is said.
@pytest.mark.parametrize(
    ("programs", "output", "error"),
    [
        ({"chromium": "exit 0"}, "", ""),
        ({"chromium-browser": STUB, "google-chrome": "exit 0"}, "", ""),
        ({"chromium-browser": STUB}, "", f"{SKIPPED}there is no apt-get to install it; if it"),
        ({"apt-get": "exit 9", "id": "echo 1000"}, "", f"{SKIPPED}only root can install it: sudo apt-get"),
        (
            {"apt-get": "echo one; echo E: no network >&2; exit 100", "id": "echo 0"},
            "installing Chromium\n",
            f"{SKIPPED}apt-get failed: E: no network\n",
        ),
        (
            {"apt-get": "exit 0", "id": "echo 0"},
            "installing Chromium\n",
            f"{SKIPPED}the package chromium has none that runs; set",
        ),
        (
            {"apt-get": 'echo exit 0 > "$HERE/chromium"; chmod +x "$HERE/chromium"', "id": "echo 0"},
            "installing Chromium\n",
            "",
        ),
    ],
)
def test_chromium_is_installed_where_it_can_be(
    programs: dict[str, str], output: str, error: str, tmp_path: Path
) -> None:
    for name in ("bash", "timeout", "tail", "chmod"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!{shutil.which('bash')}\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": str(tmp_path), "HERE": str(tmp_path), "LANG": os.environ.get("LANG", "C.UTF-8")}
    script = [str(shutil.which("bash")), ROOT / "launch" / "browser.sh"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, output)
    assert done.stderr.startswith(f"launch/browser.sh: {error}" if error else "")
    assert done.stderr.count("\n") == bool(error)
