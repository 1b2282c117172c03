"""What a run that goes on says of the run before."""

import re
from pathlib import Path

from tests.commands import run
from tests.toy_corpus import options


def test_another_precision_than_before_is_told(corpus: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run("dist_s2s.train", *options(corpus, run_dir, training__precision="fp32", training__max_steps=2))
    config = run_dir / "config.yaml"  # as if it had been trained where bfloat16 is faster
    config.write_text(config.read_text(encoding="utf-8").replace("precision: fp32", "precision: bf16"))
    (run_dir / "run.json").unlink()
    more = options(corpus, run_dir, training__precision="auto", training__max_steps=3)
    slow = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # where auto means fp32
    output = run("dist_s2s.train", *more, environment=slow).output
    assert re.search(r"^in fp32, where the run was in bf16 before$", output, re.MULTILINE)
    again = run("dist_s2s.train", *more, environment=slow).output
    assert "where the run was" not in again
