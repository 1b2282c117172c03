"""The examples, as a user starts them."""

import re
import subprocess
import sys

import pytest

from tests.commands import ROOT, clean_environment

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["python", "torchrun"])
def test_recommender_learns(launcher: tuple[str, ...]) -> None:
    finished = subprocess.run(
        [sys.executable, *launcher, "examples/recommender.py", "--steps=150"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert finished.returncode == 0, finished.stderr
    losses = [float(loss) for loss in re.findall(r"^step \d+  loss (\S+)$", finished.stdout, re.MULTILINE)]
    assert len(losses) == 3
    # The second guess knows how many clicks there are, but not whose: -p log p - (1 - p) log (1 - p) with p = 0.275.
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.56 < 0.588
