"""Files as they lie on the disk, or do not."""

import os
from pathlib import Path

import pytest

from dist_s2s import UserError
from dist_s2s.text.inputs.packed import PackedFile


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no ordinary file, and is read more than once: write what comes from"):
        PackedFile.find(str(tmp_path / "pipe"))
