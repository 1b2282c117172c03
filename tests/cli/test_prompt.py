"""Lines that somebody types."""

import sys
from collections.abc import Sequence
from io import StringIO

import pytest

from dist_s2s.cli.prompt import typed_groups


def test_lines_with_faults_are_told_and_the_next_are_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("one\ntwo\0\n\u200b\nthree\n"))

    def fault(group: Sequence[str], begin: int) -> tuple[int, str] | None:
        assert begin == 0
        return (0, "is no term") if group == ["one"] else None

    assert list(typed_groups(fault)) == [[""], ["three"]]
    first, second, *_ = capsys.readouterr().err.split("> ")[1:]
    assert first == "error: the line is no term\n"
    assert second.startswith("error: the line has a NUL")
