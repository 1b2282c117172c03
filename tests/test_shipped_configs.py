"""Every configuration in configs/ trains as shipped on a processor without AVX-512 and bfloat16."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# No AVX-512 and no bfloat16, whatever this machine has.
LOWER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_shipped_configuration_trains_without_bfloat16(config: Path, corpus: Path, tmp_path: Path) -> None:
    """Two steps on a small corpus; the model, its precision and its output layer are the configuration's own."""
    data = [f"--data.{part}={corpus}" for part in ("train", "valid", "test")]
    limits = ["--training.max_steps=2", "--training.warmup_steps=1", "--data.min_frequency=1"]
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "dist_s2s.cli.main", "train", "--ranks", "2", f"--config={config}"),
            *(*data, *limits, f"--run_dir={tmp_path / 'run'}"),
        ],
        cwd=ROOT,
        env={**os.environ, **LOWER},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert finished.returncode == 0, finished.stderr
    assert "fp32, 2 ranks on cpu" in finished.stdout
    assert "finished at step 2: training.max_steps = 2 is reached" in finished.stdout


def test_there_are_configurations() -> None:
    assert {config.stem for config in CONFIGS} >= {"phrasebook", "tatoeba-zh-en", "debian-zh-en"}
