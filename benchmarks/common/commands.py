"""dist-s2s as its users run it, with its output on stderr, and the metrics that a run leaves behind."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dist_s2s.storage.metrics import METRICS


def command(name: str, *arguments: object) -> None:
    """Run a command of dist-s2s; CalledProcessError if it fails."""
    words = [sys.executable, "-m", "dist_s2s.cli.main", name, *map(str, arguments)]
    subprocess.run(words, check=True, stdout=sys.stderr)


def as_flags(keys: Mapping[str, object]) -> dict[str, str]:
    """Return keys of the configuration with their values as a command line has them."""
    return {key: json.dumps(value).strip('"') for key, value in keys.items()}


def train(run_dir: Path, config: Path, ranks: int, keys: Mapping[str, object]) -> None:
    """Train a run on some ranks, with these keys on top of a file of others."""
    flags = [part for key, value in as_flags(keys).items() for part in (f"--{key}", value)]
    command("train", "--ranks", ranks, "--config", config, "--run_dir", run_dir, *flags)


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics."""
    return [json.loads(line) for line in (run_dir / METRICS).read_text(encoding="utf-8").splitlines()]
