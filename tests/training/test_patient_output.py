"""A screen that is lost: training goes on, and what would have been shown is not."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from dist_s2s.training.patient_output import PatientOutput


def test_a_reader_that_has_gone(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        console = Console(file=PatientOutput(stream))  # type: ignore[arg-type]
        console.print("first")
        assert os.read(reader, 100) == b"first\n"
        os.close(reader)
        for _ in range(3):
            console.print("more")
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_is_full() -> None:
    with open("/dev/full", "w") as stream:
        screen = PatientOutput(stream)
        assert screen.write("text") == 4
        screen.flush()
        assert screen.write("text") == 4
        assert screen.encoding == stream.encoding
