import json
import sys
from pathlib import Path

import pytest

import search_bench
from tests.toy_corpus import PAIRS

# What joeynmt_search.py calls of JoeyNMT, whose translations here are the sources.
PEER = {
    "config": """
from types import SimpleNamespace
from typing import NamedTuple

class Test(NamedTuple):
    beam_size: int = 1
    beam_alpha: float = -1.0
    batch_size: int = 1
    batch_type: str = "token"

def parse_global_args(config, rank, mode):
    assert (config["model_dir"].endswith("peer/model"), mode) == (True, "translate")
    return SimpleNamespace(test=Test(), device="cpu", n_gpu=0, autocast={}, num_workers=0)
""",
    "prediction": """
class Data(list):
    reset_cache, set_item = list.clear, list.append

def prepare(args, rank, mode):
    print("words of its own")
    return "model", None, None, Data()

def predict(model, data, device, n_gpu, args, autocast, num_workers):
    assert args[1:] == (1.0, len(data), "sentence")
    lengths = [len(line) for line in data]
    assert lengths == sorted(lengths)
    return None, None, list(data), [["token"] * args.beam_size for _ in data], None, None
""",
}
JOB = {
    "train": "train.tsv", "valid": "dev.tsv", "seed": 1, "vocabulary_size": 20, "max_length": 9, "dropout": 0.1,
    "batch_tokens": 100, "hidden_size": 8, "embedding_dim": 8, "learning_rate": 0.1, "max_norm": 1.0,
    "label_smoothing": 0.1, "input_feeding": True, "validate_every": 1,
}  # fmt: skip


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


def test_joeynmt_translates_the_same_lines(
    saved_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("joeynmt", "peer"):
        (tmp_path / folder).mkdir()
    for name, text in PEER.items():
        (tmp_path / "joeynmt" / f"{name}.py").write_text(text)
    (tmp_path / "peer" / "job.json").write_text(json.dumps(JOB))
    (tmp_path / "in.tsv").write_text("".join(f"{target}\t{target}\n" for _, target in PAIRS), encoding="utf-8")
    monkeypatch.setattr(search_bench, "python_of", lambda peer, folder: sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = [f"--run={saved_run}", f"--input={tmp_path / 'in.tsv'}", f"--joeynmt={tmp_path / 'peer'}"]
    file = tmp_path / "figures.json"
    assert search_bench.main([*run, "--beam_sizes", "1", "2", "--batch_size=3", "--turns=1", f"--json={file}"]) == 0
    figures = json.loads(file.read_text())
    assert {size: of["tokens"] for size, of in figures["joeynmt"].items()} == {"1": len(PAIRS), "2": 2 * len(PAIRS)}
    assert figures["joeynmt"]["1"]["bleu"] > 99
    assert figures["settings"]["joeynmt"] == "peer"
    assert "JoeyNMT" in capsys.readouterr().out
