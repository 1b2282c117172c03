"""The sharded output layers in the real commands, and the arithmetic that chooses among them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dist_s2s.analysis.answers import SavedSide
from dist_s2s.config import load_config
from dist_s2s.translation.output import choose_output
from tests.commands import run
from tests.test_train import losses
from tests.toy_corpus import options

MIB = 1 << 20


@pytest.mark.parametrize(
    ("num_classes", "hidden_size", "world_size", "tied", "expected"),
    [
        (10_000_000, 512, 1, False, "replicated"),
        (32 * MIB // 16 // 512, 511, 2, False, "replicated"),
        (32 * MIB // 16 // 512 + 1, 511, 2, False, "sharded"),
        (2 * 256 * MIB // 16 // 512, 511, 2, False, "sharded"),
        (2 * 256 * MIB // 16 // 512 + 1, 511, 2, False, "sampled"),
        (4 * 256 * MIB // 16 // 512, 511, 4, False, "sharded"),
        (100, 16, 2, True, "sharded"),
        (100, 16, 1, True, "sharded"),
    ],
)
def test_auto_goes_by_the_memory_of_the_layer(
    num_classes: int, hidden_size: int, world_size: int, tied: bool, expected: str
) -> None:
    assert choose_output(num_classes, hidden_size, world_size, tied=tied) == expected


@pytest.mark.parametrize(("output", "tied"), [("sharded", False), ("sampled", False), ("sampled", True)])
def test_run_goes_on_and_is_evaluated_on_other_numbers_of_ranks(
    output: str, tied: bool, corpus: Path, tmp_path: Path
) -> None:
    exact = {
        "training__precision": "fp64",
        "training__checkpoint_every": 10,
        "model__dropout": 0,
        "model__output": output,
        "model__output_samples": 20,
        "model__tie_embeddings": tied,
        "model__embedding_dim": 12,
        "embedding__num_embeddings": 90,  # more than tokens: the other rows are no classes
    }
    if tied:  # one table for source, target and output
        exact |= {"model__tie_source": True, "data__joint_vocabulary": True}
        exact |= dict.fromkeys(("data__source_tokenizer", "data__target_tokenizer"), "characters")
    one, two = tmp_path / "one", tmp_path / "two"
    run("dist_s2s.train", *options(corpus, one, **exact))
    summary = json.loads((one / "summary.json").read_text())
    assert summary["valid_loss"] < 3

    shutil.copytree(one, two)
    shutil.rmtree(two / "checkpoints" / "step-20")
    run("dist_s2s.train", *options(corpus, two, **exact), ranks=2)
    assert losses(two) == pytest.approx(losses(one), rel=0, abs=1e-9)

    scores = tmp_path / "scores.json"
    run("dist_s2s.evaluate", "--run", two, "--data", corpus, "--json", scores, "--beam_size", 3, ranks=3)
    run("dist_s2s.evaluate", "--run", one, "--data", corpus, "--json", tmp_path / "alone.json", "--beam_size", 3)
    found, alone = (json.loads(path.read_text()) for path in (scores, tmp_path / "alone.json"))
    assert found["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-9)
    for each in (found, alone):
        each.pop("perplexity")
        each.pop("seconds")
        each.pop("system")
    assert found == alone
    if tied:  # forced decoding
        run("dist_s2s.score", "--run", two, corpus, "--json", "--output", scores, ranks=4)
        lines = run("dist_s2s.score", "--run", one, corpus, "--json").output.splitlines()
        for line, other in zip(scores.read_text().splitlines(), lines, strict=True):
            each, alone = json.loads(line), json.loads(other)
            for key in ("token_log_probabilities", "log_probability", "mean_log_probability"):
                assert each.pop(key) == pytest.approx(alone.pop(key), abs=1e-9)
            assert each == alone
    rows = [SavedSide.open(one, side).rows.fetch(torch.arange(20)) for side in ("source", "target")]
    assert torch.equal(*rows) == tied


def test_auto_is_decided_once(corpus: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tied = {"model__tie_embeddings": True, "model__embedding_dim": 16}
    run("dist_s2s.train", *options(corpus, run_dir, **tied, training__max_steps=5))
    assert load_config(run_dir / "config.yaml", {}).model.output == "sharded"
    again = run("dist_s2s.train", *options(corpus, run_dir, **tied, training__max_steps=10))
    assert "going on from" in again.output
