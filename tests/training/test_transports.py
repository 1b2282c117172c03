"""A run gives the same losses, tables and core, bit by bit, whether rows travel by shared memory or by gloo."""

import json
from pathlib import Path

import pytest

from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from tests.commands import run
from tests.toy_corpus import options

STEPS = 30


def train(corpus: Path, run_dir: Path, transport: str, output: str) -> tuple[dict[int, float], dict[str, str]]:
    """The loss of each step, and the SHA-256 of each tensor file of the last checkpoint."""
    arguments = options(
        corpus,
        run_dir,
        embedding__transport=transport,
        embedding__layout="round_robin",
        model__output=output,
        training__max_steps=STEPS,
        training__validate_every=STEPS,
        training__checkpoint_every=STEPS,
    )
    run("dist_s2s.train", *arguments, ranks=2)
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    sums: dict[str, str] = read_manifest(list_checkpoints(run_dir / "checkpoints")[-1])["sha256"]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}, sums


@pytest.mark.parametrize("output", ["replicated", "sharded", "sampled"])
def test_both_transports_train_the_same_model(corpus: Path, tmp_path: Path, output: str) -> None:
    losses, weights = train(corpus, tmp_path / "memory", "shared_memory", output)
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < losses[1] - 0.5
    assert len(weights) > 2
    assert (losses, weights) == train(corpus, tmp_path / "gloo", "collective", output)
