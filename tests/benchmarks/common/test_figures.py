"""What results say of the machine, and what it is not asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.figures import provenance, write_results
from common.peers import BENCHMARKS, environment_for_programs

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # which has no bfloat16 LSTM


def test_results_state_the_capability_beside_the_figures(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, {"figure": 7})
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["figure"] == 7
    assert report["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert report.keys() == {*provenance(), "figure"}


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="forces an x86 capability")
def test_bf16_is_refused_in_one_line_where_the_cpu_lacks_it(tmp_path: Path) -> None:
    folder = tmp_path / "peers"  # where nothing is to be made
    command = [
        sys.executable,
        str(BENCHMARKS / "train_bench.py"),
        "--precision=bf16",
        "--peers=joeynmt",
        f"--peers_folder={folder}",
    ]
    finished = subprocess.run(
        command, env={**environment_for_programs(), **AVX2}, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 2, finished.stderr
    line = finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    assert line.startswith("training.precision is bf16, but this CPU (AVX2) cannot train an LSTM in bfloat16")
    assert not folder.exists()
