"""Text tools of a run: learnt once, the same on all ranks, and kept with the run."""

import json
from pathlib import Path

from dist_s2s.config import load_config
from dist_s2s.translation.runs.load import load_text_sides
from tests.commands import run
from tests.toy_corpus import PAIRS, options


def test_subwords_with_tags_and_text_in_pieces_train_on_two_ranks(tmp_path: Path) -> None:
    corpus, run_dir = tmp_path / "tagged.tsv", tmp_path / "run"
    pairs = [(f"<2en> {source}", target.replace("teacher", "tea@@ cher")) for source, target in PAIRS]
    corpus.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    text = {
        "data__source_tokenizer": "bpe",
        "data__source_vocabulary_size": 5000,
        "data__tags": "<2en>,<2de>",
        "data__bpe_dropout": 0.5,
        "data__target_tokenizer": "whitespace",
        "training__max_steps": 2,
    }
    shown = run("dist_s2s.train", *options(corpus, run_dir, **text), ranks=2).output
    assert "data.source_vocabulary_size is 5,000, but the training pairs give 3" in shown
    translations = (run_dir / "translations.txt").read_text(encoding="utf-8")
    assert "the teacher" in translations
    assert "@@" not in translations
    sealed = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["sha256"]
    assert {"source_subwords.model", "source_vocabulary.txt", "target_vocabulary.txt"} <= sealed.keys()
    source, _ = load_text_sides(load_config(run_dir / "config.yaml", {}), run_dir)
    assert source.encode(pairs[0][0])[0] == source.vocabulary.tokens.index("<2en>")
    (run_dir / "source_subwords.model").write_bytes(b"something else")
    failed = run("dist_s2s.translate", "--run", run_dir, stdin=b"<2en> a\n", status=2)
    assert "source_subwords.model is damaged or was edited" in failed.errors[0]
