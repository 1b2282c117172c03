"""Every configuration in configs/ trains as shipped on a processor without AVX-512 and bfloat16."""

from pathlib import Path

import pytest

from tests.commands import ROOT, run

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# No AVX-512 and no bfloat16, whatever this machine has. Torch and oneDNN read these when they first compute.
LOWER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_shipped_configuration_trains_without_bfloat16(config: Path, corpus: Path, tmp_path: Path) -> None:
    """Two steps on a small corpus; the model, its precision and its output layer are the configuration's own."""
    few = tmp_path / "few.tsv"  # to translate, which takes longest where nothing is learnt yet
    few.write_text("".join(corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:4]), encoding="utf-8")
    data = [f"--data.train={corpus}", f"--data.valid={few}", f"--data.test={few}"]
    limits = [
        "--training.max_steps=2",
        "--training.report=false",
        "--training.warmup_steps=1",
        "--data.min_frequency=1",
    ]
    arguments = [f"--config={config}", *data, *limits, f"--run_dir={tmp_path / 'run'}"]
    shown = run("dist_s2s.train", *arguments, ranks=2, environment=LOWER).output
    assert "fp32, 2 ranks on cpu" in shown
    assert "finished at step 2: training.max_steps = 2 is reached" in shown


def test_there_are_configurations() -> None:
    of_corpora = {"multi30k-de-en", "tatoeba-zh-en", "tatoeba-en-zh", "debian-zh-en", "debian-zh-en-words"}
    assert {config.stem for config in CONFIGS} >= {"phrasebook", *of_corpora}
