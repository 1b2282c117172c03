"""python -m dist_s2s.estimate: what it prints and writes, and its mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest

from dist_s2s import UserError, estimate
from tests.commands import run

BILLION = ["--num_embeddings=1_000_000_000", "--embedding_dim=64", "--ranks=64", "--hosts=8"]


def test_the_command_predicts_a_billion_rows(tmp_path: Path) -> None:
    finished = run("dist_s2s.estimate", *BILLION, f"--json={tmp_path / 'estimate.json'}")
    assert "1,000,000,000 rows × 64 in float32" in finished.output
    assert "64 ranks on 8 hosts of 8 cores; between hosts 3.125 GB/s and 50 µs" in finished.output
    assert "Best: round_robin, collective. With contiguous a step takes about" in finished.output
    assert "off by a factor of" in finished.output
    assert finished.seconds < 30

    report = json.loads((tmp_path / "estimate.json").read_text(encoding="utf-8"))
    assert report["best"]["layout"] == report["choices"][0]["layout"] == "round_robin"
    for choice in report["choices"]:
        assert choice["memory_per_rank"]["rows"] == 10**9 / 64 * 64 * 4
        assert choice["memory_per_rank"]["optimizer_state"] == 10**9 / 64 * 4
        assert sum(choice["seconds"].values()) == pytest.approx(choice["step_seconds"])
        for parts in (choice["memory_per_rank"], choice["bytes_sent"]):
            assert sum(parts.values()) == pytest.approx(2 * parts["total"])
    assert report["choices"][0]["step_seconds"] < report["choices"][1]["step_seconds"]


def test_settings_reach_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "estimate.json"

    def report(*settings: str) -> dict[str, Any]:
        assert estimate.main([*BILLION, *settings, f"--json={file}"]) == 0
        return json.loads(file.read_text(encoding="utf-8"))["choices"][0]  # type: ignore[no-any-return]

    usual = report()
    assert report("--bandwidth=0.1")["step_seconds"] > usual["step_seconds"]
    assert report("--latency=5000")["step_seconds"] == pytest.approx(usual["step_seconds"] + 4 * 4_950e-6)
    assert report("--cores=2")["step_seconds"] > usual["step_seconds"]
    assert report("--ids=8192")["distinct_ids_per_rank"] > usual["distinct_ids_per_rank"]
    assert report("--skew=0")["distinct_ids_per_rank"] == pytest.approx(4_096, abs=1)
    assert report("--optimizer=SparseAdam")["memory_per_rank"]["optimizer_state"] == 2 * 4e9
    assert report("--averaged")["memory_per_rank"]["average"] == 10**9 / 64 * (64 * 4 + 4)
    assert usual["memory_per_rank"]["average"] == 0
    assert report("--dtype=bfloat16")["memory_per_rank"]["rows"] == 2e9
    assert report("--comm_dtype=bfloat16")["bytes_sent"]["rows"] == usual["bytes_sent"]["rows"] / 2
    one_host = report("--hosts=1", "--transport=shared_memory")
    assert one_host["transport"] == "shared_memory"
    assert "which travel in bfloat16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--num_embeddings, --embedding_dim and --ranks are needed"),
        ([*BILLION, "--ids=0"], "must be at least 1, but is 0"),
        ([*BILLION, "--skew=much"], "invalid float value: 'much'"),
        ([*BILLION, "--optimizer=Adam"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        estimate.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--skew=-1"], "skew must be at least 0 and finite, but is -1"),
        (["--skew=inf"], "skew must be at least 0 and finite, but is inf"),
        (["--skew=nan"], "skew must be at least 0 and finite, but is nan"),
        (["--bandwidth=0"], "bandwidth must be more than 0 bytes per second, but is 0"),
        (["--latency=-1"], "latency must be at least 0 seconds, but is -1e-06"),
        (
            ["--averaged", "--dtype=bfloat16"],
            "an average needs rows in float32 or float64, but they are torch.bfloat16",
        ),
        (["--hosts=7"], "64 ranks are not a multiple of 7 hosts"),
        (["--transport=shared_memory"], "ranks on 8 hosts do not share memory"),
        (["--calibration=missing.json"], "cannot read the calibration missing.json: No such file"),
        (["--json=missing/estimate.json"], "there is no folder missing"),
        (["--calibrate=missing/machine.json"], "there is no folder missing"),
        (["--json=."], "cannot write .: it is a folder; name a file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        estimate.main([*BILLION, *arguments])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
