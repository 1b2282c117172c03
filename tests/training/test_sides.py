"""Text tools of a run: learnt once, the same on all ranks, and kept with the run."""

import json
from pathlib import Path

from dist_s2s.config import load_config
from dist_s2s.translation.load import load_text_sides
from tests.commands import run
from tests.toy_corpus import PAIRS, options


def test_subwords_with_tags_train_on_two_ranks_and_go_on(tmp_path: Path) -> None:
    corpus, run_dir = tmp_path / "tagged.tsv", tmp_path / "run"
    corpus.write_text("".join(f"<2en> {source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    text = {
        "data__source_tokenizer": "bpe",
        "data__target_tokenizer": "bpe",
        "data__source_vocabulary_size": 500,
        "data__target_vocabulary_size": 500,
        "data__joint_vocabulary": "true",
        "data__tags": "<2en>,<2de>",
    }
    shown = run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=2, **text), ranks=2).output
    assert "the training pairs have no more subwords than that: data.source_vocabulary_size is 500" in shown
    sealed = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["sha256"]
    assert {"source_subwords.model", "target_subwords.model", "target_vocabulary.txt"} <= sealed.keys()
    source, target = load_text_sides(load_config(run_dir / "config.yaml", {}), run_dir)
    assert source.vocabulary.tokens == target.vocabulary.tokens
    assert source.encode(f"<2en> {PAIRS[0][0]}")[0] == source.vocabulary.tokens.index("<2en>")
    run("dist_s2s.train", *options(corpus, run_dir, training__max_steps=3, **text), ranks=1)
    (run_dir / "source_subwords.model").write_bytes(b"something else")
    failed = run("dist_s2s.translate", "--run", run_dir, stdin=b"<2en> a\n", status=2)
    assert "source_subwords.model is damaged or was edited" in failed.errors[0]


def test_text_in_pieces_is_scored_in_words(tmp_path: Path) -> None:
    corpus, run_dir = tmp_path / "pieces.tsv", tmp_path / "run"
    pieces = [(source, target.replace("teacher", "tea@@ cher")) for source, target in PAIRS]
    corpus.write_text("".join(f"{source}\t{target}\n" for source, target in pieces), encoding="utf-8")
    whitespace = {"data__target_tokenizer": "whitespace", "training__max_steps": 60}
    run("dist_s2s.train", *options(corpus, run_dir, **whitespace))
    translations = (run_dir / "translations.txt").read_text(encoding="utf-8")
    assert "the teacher" in translations
    assert "@@" not in translations
