"""How commands end whose standard streams are closed, or cannot be written to."""

import subprocess
import sys
from pathlib import Path

import pytest

PRINTS = """
import sys
from dist_s2s.cli.command_line import run_command
run_command(lambda: print("a line"))
"""
OPENS = """
import sys
from dist_s2s.cli.command_line import run_command
def main():
    with open(sys.argv[1], "w") as file:
        print("for the screen", flush=False)
        print("error", file=sys.stderr)
        file.write(f"{file.fileno() > 2}")
run_command(main)
"""


def shell(redirection: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose standard streams a shell has redirected."""
    words = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", script, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        (">&-", "Bad file descriptor"),
        pytest.param(
            "> /dev/full",
            "No space left on device",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full"),
        ),
    ],
)
def test_what_cannot_be_printed_is_an_error_of_one_line(redirection: str, reason: str) -> None:
    done = shell(redirection, PRINTS)
    assert (done.returncode, done.stderr) == (2, f"error: cannot write stdout: {reason}\n")


@pytest.mark.parametrize(("closed", "status"), [("<&-", 0), (">&-", 2), ("2>&-", 0), ("<&- >&- 2>&-", 2)])
def test_no_file_takes_the_number_of_a_closed_stream(closed: str, status: int, tmp_path: Path) -> None:
    done = shell(closed, OPENS, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "True"
    assert done.returncode == status


def test_the_errors_of_others_keep_their_traceback() -> None:
    done = shell("", PRINTS.replace('print("a line")', 'open("/there/is/no/such/file")'))
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
