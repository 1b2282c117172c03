"""dist-s2s as its users run it, with its output on stderr, and the metrics that a run leaves behind."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dist_s2s.storage.metrics import METRICS


def command(name: str, *arguments: object) -> None:
    """Run a command of dist-s2s; if it fails, its words are above, and SystemExit has its status."""
    words = [sys.executable, "-m", "dist_s2s.cli.main", name, *map(str, arguments)]
    status = subprocess.run(words, stdout=sys.stderr).returncode
    if status:
        raise SystemExit(status)


def as_flags(keys: Mapping[str, object]) -> dict[str, str]:
    """Return keys of the configuration with their values as a command line has them."""
    return {key: json.dumps(value).strip('"') for key, value in keys.items()}


def train(run_dir: Path, config: Path, ranks: int, keys: Mapping[str, object]) -> None:
    """Train a run on some ranks, with these keys on top of a file of others."""
    flags = [part for key, value in as_flags(keys).items() for part in (f"--{key}", value)]
    command("train", "--ranks", ranks, "--config", config, "--run_dir", run_dir, *flags)


def train_once(run_dir: Path, config: Path, ranks: int, keys: Mapping[str, object]) -> None:
    """Train a run unless it is there; SystemExit if it was trained with other keys, or on other ranks."""
    wanted = {"config": config.read_text(encoding="utf-8"), "ranks": ranks, "keys": dict(keys)}
    told = run_dir.with_name(f"{run_dir.name}.json")
    if (run_dir / "summary.json").exists():
        check_same(json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}, wanted, run_dir)
        return
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(json.dumps(wanted), encoding="utf-8")
    train(run_dir, config, ranks, keys)


def check_same(there: Mapping[str, object], wanted: Mapping[str, object], run_dir: Path) -> None:
    """Raise SystemExit if what is there was made otherwise than is wanted."""
    wanted = json.loads(json.dumps(wanted))
    differ = [name for name in wanted if there.get(name) != wanted[name]]
    if differ:
        raise SystemExit(f"{run_dir} was made with other settings ({', '.join(differ)}): give another --folder")


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics."""
    return [json.loads(line) for line in (run_dir / METRICS).read_text(encoding="utf-8").splitlines()]
