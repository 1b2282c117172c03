"""metrics.jsonl read while it is written."""

import os
from pathlib import Path

from dist_s2s.storage.metrics import MetricsReader


def test_lines_count_once_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = MetricsReader(path)
    assert reader.new_lines() == ([], False)
    path.write_text('{"step": 1}\n{"step": 2, "lo', encoding="utf-8")
    assert reader.new_lines() == ([{"step": 1}], True)
    assert reader.new_lines() == ([], False)
    with open(path, "a", encoding="utf-8") as file:
        file.write('ss": 0.5}\n\n')
    assert reader.new_lines() == ([{"step": 2, "loss": 0.5}], False)


def test_a_file_that_replaces_it_is_read_from_its_beginning(tmp_path: Path) -> None:
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    path.write_text('{"step": 1}\n{"step": 2}\n', encoding="utf-8")
    reader = MetricsReader(path)
    reader.new_lines()
    other.write_text('{"step": 1, "loss": 2.5, "longer": true}\n', encoding="utf-8")
    os.replace(other, path)
    assert reader.new_lines() == ([{"step": 1, "loss": 2.5, "longer": True}], True)
    path.write_text('{"step": 3}\n', encoding="utf-8")
    assert reader.new_lines() == ([{"step": 3}], True)


def test_lines_that_are_no_metrics_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1, "loss": NaN}\n[1]\n{"step": "x"}\n{}\n\xff\nhalf {\n{"step": 2}\n' + b"[" * 100_000 + b"\n"
    )
    reader = MetricsReader(path)
    lines, _ = reader.new_lines()
    assert [line["step"] for line in lines] == [1, 2]
    assert reader.damaged == 6
