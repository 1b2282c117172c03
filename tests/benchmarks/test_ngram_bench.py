"""The benchmark of n-grams on small tables."""

import json
from pathlib import Path

import pytest

import ngram_bench


@pytest.mark.usefixtures("forked_ranks")
def test_every_table_has_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ngrams.json"
    sizes = ["--num_embeddings=50", "--embedding_dim=8", "--hidden_size=8", "--ngram_dim=4", "--batch_tokens=40"]
    assert ngram_bench.main(["--rows", "7", "100", "--steps=3", "--warm_up=1", *sizes, f"--json={file}"]) == 0
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["ratios"].keys() == figures["median_seconds"].keys() == {"0", "7", "100"}
    assert figures["ratios"]["7"] == 1
    assert min(figures["median_seconds"].values()) > 0
    assert "no n-grams" in capsys.readouterr().out
    for wrong in (["--rows", "7", "7"], ["--rows", "1"], ["--steps=2", "--warm_up=2"]):
        with pytest.raises(SystemExit):
            ngram_bench.main(wrong)
