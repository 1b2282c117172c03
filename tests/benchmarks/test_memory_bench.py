"""The memory benchmark on a small table."""

import json
from pathlib import Path

import pytest

import memory_bench
from lookup.lineup import TRANSPORTS

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads /proc/self/status, which Linux has"
)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_memory_bench_measures_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str], transport: str) -> None:
    file = tmp_path / "memory.json"
    arguments = ["--ranks=2", "--num_embeddings=400000", "--embedding_dim=64", "--ids=16", "--limit=0.5"]
    # Half of a shard cannot be enough.
    assert memory_bench.main([*arguments, f"--transport={transport}", f"--json={file}"]) == 1
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["least"] == 200_000 * 65 * 4
    assert report["ratio"] == max(rank["above_idle"] for rank in report["memory"]) / report["least"]
    assert all(0.95 < rank["above_idle"] / report["least"] < 1.6 for rank in report["memory"])
    assert "FAILED" in capsys.readouterr().out
