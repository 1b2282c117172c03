"""The vocabulary benchmark on a small vocabulary."""

import json
from pathlib import Path

import pytest

import vocabulary_bench


def test_every_contender_has_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "vocabulary.json"
    arguments = ["--max_size=400", "--update_size=50", "--repetitions=2", f"--json={file}"]
    assert vocabulary_bench.main(arguments) == 0
    rates = json.loads(file.read_text(encoding="utf-8"))["words_per_second"]
    assert rates.keys() == {"replaced", "stream", "one by one", "looked up"}
    assert min(rates.values()) > 0
    assert "400 ids" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        vocabulary_bench.main(["--max_size=400", "--update_size=201"])
