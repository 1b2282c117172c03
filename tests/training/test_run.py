"""What a run settles for itself, and what one that goes on says of the run before."""

import json
import re
from pathlib import Path

from dist_s2s.config import load_config
from tests.commands import run
from tests.toy_corpus import PAIRS, options


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


def test_a_chinese_target_is_scored_as_chinese_and_the_choice_is_kept(tmp_path: Path) -> None:
    """Scores, what chooses the best checkpoint and the longest translations: settled, written, and open to change."""
    data = tmp_path / "en-zh.tsv"
    data.write_text("".join(f"{english}\t{chinese}\n" for chinese, english in PAIRS[:12]), encoding="utf-8")
    tokenizers = {"data__source_tokenizer": "words", "data__target_tokenizer": "characters"}
    settings = tokenizers | {"training__validate_every": 1, "training__log_every": 1}
    run_dir = tmp_path / "run"
    output = run("dist_s2s.train", *options(data, run_dir, training__max_steps=3, **settings)).output
    assert re.search(
        r"^translations of at most \S+ · source tokens \+ \d+ tokens; the best by BLEU \(tokenizer zh\)$", output, re.M
    )
    assert len(re.findall(r"^step \d .* valid BLEU \d+\.\d\d · chrF .*\|tok:zh\|", output, re.M)) == 3
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert "|tok:zh|" in summary["signature"]
    assert "asian:yes" in summary["ter_signature"]
    assert summary["ter"] >= 0
    assert 0 <= summary["translations_cut"] <= 12
    settled = load_config(run_dir / "config.yaml", {})
    assert settled.training.bleu_tokenizer == "zh"
    assert settled.translation.length_factor > 0

    changed = options(data, run_dir, training__max_steps=4, training__metric="loss", **settings)
    output = run("dist_s2s.train", *changed).output
    assert "the best checkpoint is chosen by loss, and was by BLEU (tokenizer zh); the best so far no longer" in output
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert (summary["metric"], summary["steps"]) == ("loss", 4)
    assert summary["best_step"] >= 3  # validated again, where the best so far did not count
