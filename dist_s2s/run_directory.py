"""One directory for each run: whose it is, and whether training starts anew in it or goes on."""

import os
from pathlib import Path

from dist_s2s.checkpoint import list_checkpoints, read_manifest
from dist_s2s.config import Config, differences, load_config
from dist_s2s.errors import UserError

CONFIG = "config.yaml"


def checkpoint_to_resume(config: Config) -> Path | None:
    """The checkpoint that training goes on from; None to start anew. Reads only.

    Raises UserError if the directory holds the run of another configuration, or something that is not a run.
    """
    run_dir, resume = config.run_dir, config.training.resume
    if resume == "never":
        return None
    if (run_dir / CONFIG).is_file():
        changed = differences(load_config(run_dir / CONFIG, {}), config)
        if changed:
            raise UserError(
                f"{run_dir} belongs to a run of another configuration ({'; '.join(changed)}). Give another --run_dir, "
                "or --training.resume never to move it aside and start anew"
            )
    elif run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UserError(f"{run_dir} exists and is not a run directory (it has no {CONFIG}); give another --run_dir")
    if resume != "auto":
        read_manifest(Path(resume))
        return Path(resume)
    found = list_checkpoints(run_dir / "checkpoints")
    return found[-1] if found else None


def claim(config: Config, start_anew: bool) -> None:
    """Makes the run directory and writes its config.yaml; an older run is moved aside. For the first rank alone."""
    run_dir = config.run_dir
    if start_anew and config.training.resume == "never" and run_dir.exists():
        number = next(n for n in range(1, 1_000_000) if not _aside(run_dir, n).exists())
        os.rename(run_dir, _aside(run_dir, number))
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / CONFIG).write_text(config.to_yaml(), encoding="utf-8")


def _aside(run_dir: Path, number: int) -> Path:
    return run_dir.with_name(f"{run_dir.name}.{number}")
