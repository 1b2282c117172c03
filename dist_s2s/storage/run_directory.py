"""One directory for each run: whose it is, and whether training starts anew in it or goes on."""

import os
from collections.abc import Mapping
from pathlib import Path

from dist_s2s import UserError
from dist_s2s.config import Config, differences, load_config
from dist_s2s.storage.checkpoint import list_checkpoints, read_manifest
from dist_s2s.storage.durable_files import is_partial
from dist_s2s.storage.lock import LOCK, RunLock
from dist_s2s.storage.publishing import MANIFEST
from dist_s2s.storage.quantization import refuse_quantized
from dist_s2s.storage.run_files import RUN_MANIFEST, check_run, data_changes, write_run_files

CONFIG = "config.yaml"


def checkpoint_of_run(path: Path) -> Path | None:
    """Return a checkpoint's path so that its run is two folders above, even if the path begins below it, or is a link.

    None: the path is no checkpoint, or there is no run that it belongs to.
    """
    if not (path / MANIFEST).is_file():
        return None
    forms = (path, path.absolute(), path.resolve())
    return next((form for form in forms if (form.parent.parent / CONFIG).is_file()), None)


def checkpoint_to_resume(config: Config) -> Path | None:
    """Return the checkpoint that training goes on from; None to start anew. Reads only.

    Raises UserError if the directory holds the run of another configuration, or something that is not a run.
    """
    run_dir, resume = config.run_dir, config.training.resume
    is_run = (run_dir / CONFIG).is_file()
    if not is_run and not _is_unused(run_dir):
        raise UserError(f"{run_dir} exists and is not a run directory (it has no {CONFIG}); give another --run_dir")
    if resume == "never":
        return None
    if is_run and (changed := _changes(run_dir, config)):
        raise UserError(
            f"{run_dir} belongs to a run of another configuration ({changed}). Give another --run_dir, or "
            "--training.resume never to move it aside and start anew"
        )
    if resume == "auto":
        found = list_checkpoints(run_dir / "checkpoints")
        if found:
            _check_goes_on(found[-1])
        return found[-1] if found else None
    checkpoint = Path(resume).resolve()
    _check_goes_on(checkpoint)
    if changed := _changes(checkpoint.parent.parent, config):
        raise UserError(f"{checkpoint} belongs to a run of another configuration ({changed}); train with that one")
    return checkpoint


def _check_goes_on(checkpoint: Path) -> None:
    """Raise UserError if it is no checkpoint, or one that lacks what training needs to go on."""
    manifest = read_manifest(checkpoint)
    refuse_quantized(checkpoint, manifest, "training goes on from")
    if manifest.get("averaged") or manifest.get("shortlist"):
        what = "is an average" if manifest.get("averaged") else "has a shortlist for translating"
        raise UserError(
            f"{checkpoint} {what}, without the optimizers' state, so training can't go on from it; begin "
            f"another run with its weights: --training.init_from {checkpoint.parent.parent}"
        )


def is_checkpoint_of(run_dir: Path, checkpoint: Path) -> bool:
    """Tell whether a checkpoint is one of the run in ``run_dir``: not of another run, and not moved aside."""
    return checkpoint.resolve() in list_checkpoints((run_dir / "checkpoints").resolve())


def has_other_data(config: Config, checkpoint: Path | None, data: Mapping[str, Mapping[str, object]]) -> bool:
    """Tell whether training is to go on with other data than the run had so far. Reads only.

    Args:
        data: of this run, from ``describe_data``.

    Raises:
        UserError: if it has other data, and ``training.resume_with_other_data`` does not allow it; or if a file of the
            run is damaged.
    """
    if checkpoint is None:
        return False
    changed = data_changes(check_run(checkpoint.parent.parent), data)
    if changed and not config.training.resume_with_other_data:
        raise UserError(
            f"the run {checkpoint.parent.parent} was trained on other data: {'; '.join(changed)}. Put the files back, "
            "give another --run_dir, or --training.resume_with_other_data true to go on with these"
        )
    return bool(changed)


def _is_unused(run_dir: Path) -> bool:
    """Tell whether a path is free, or a directory with no more than a run leaves that is killed while it claims it."""
    if not run_dir.is_dir():
        return not run_dir.exists()
    return all(file.name in (LOCK, RUN_MANIFEST) or is_partial(file) for file in run_dir.iterdir())


def _changes(run_dir: Path, config: Config) -> str:
    return "; ".join(differences(load_config(run_dir / CONFIG, {}), config))


def claim(
    config: Config,
    checkpoint: Path | None,
    lock: RunLock,
    files: Mapping[str, bytes],
    data: Mapping[str, Mapping[str, object]],
) -> None:
    """Make the run directory this run's, and write its small files. For the first rank alone, which holds ``lock``.

    Moved aside, never deleted: with ``training.resume never`` an older run, as RUN.1; when training goes on from
    ``checkpoint``, the later checkpoints of the run, or all of them if ``checkpoint`` is not one of them: they belong
    to a course that training now leaves.

    Args:
        config: written as config.yaml.
        checkpoint: what training goes on from; None to start anew.
        lock: the directory's.
        files: of both sides of the text, by name.
        data: of this run, from ``describe_data``.
    """
    run_dir = config.run_dir
    if config.training.resume == "never" and (run_dir / CONFIG).exists():
        if run_dir.resolve() == Path.cwd():
            raise UserError(f"the run in {run_dir} cannot be moved aside from within it; go to another folder")
        _move_aside(run_dir.resolve())
        run_dir.resolve().mkdir()  # of a link, where it leads
        lock.take()
    if checkpoint is not None:
        first = read_manifest(checkpoint)["step"] + 1 if is_checkpoint_of(run_dir, checkpoint) else 0
        for other in reversed(list_checkpoints(run_dir / "checkpoints")):  # newest first: a kill leaves no gap
            if read_manifest(other)["step"] >= first:
                _move_aside(other)
    # With that configuration the run goes on, wherever it began.
    written = config.model_copy(update={"training": config.training.model_copy(update={"resume": "auto"})})
    write_run_files(run_dir, {CONFIG: written.to_yaml().encode(), **files}, data)


def _move_aside(path: Path) -> None:
    aside = (path.with_name(f"{path.name}.{number}") for number in range(1, 1_000_000))
    os.rename(path, next(name for name in aside if not name.exists()))
