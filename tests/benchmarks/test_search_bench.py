import json
from pathlib import Path

import pytest

import search_bench


def test_search_bench_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    sizes = ["--num_embeddings=20", "--embedding_dim=4", "--hidden_size=4", "--words=3"]
    assert search_bench.main([*sizes, "--sentences=5", "--batch_size=2", "--turns=1", f"--json={file}"]) == 0
    figures = json.loads(file.read_text())["beam_sizes"]
    assert list(figures) == ["1", "5"]
    assert all((of["sentences"], of["tokens"]) == (5, 15) for of in figures.values())
    assert "tokens/s" in capsys.readouterr().out


def test_search_bench_needs_sentences_for_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        search_bench.main(["--run=run"])
    assert "--run and --input go together" in capsys.readouterr().err
