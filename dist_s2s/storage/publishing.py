"""Writing a checkpoint: in a directory of another name, which is renamed into place when it is complete."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.storage.durable_files import naming, sync_directory, write_checked_json

MANIFEST = "manifest.json"
_REPLACED, _REMOVED = ".replaced", ".old"  # endings of hidden checkpoints: whole ones, and others
FORMAT = 2  # 1 had no checksum of the manifest itself


def publish(
    checkpoints: Path,
    step: int,
    write: Callable[[Path], Mapping[str, str]],
    describe: Callable[[], Mapping[str, Any]],
    ranks: Ranks,
) -> Path:
    """Write ``checkpoints/step-N`` (collective). Until its last moment the directory has another name.

    Args:
        write: called on every rank with the directory, in which it writes the rank's files; returns the SHA-256 of
            each, by name. Calls no collectives.
        describe: called on the first rank once all files are written; returns what else the manifest is to hold.

    Raises:
        UserError: on every rank, if any of them cannot write.
    """
    final = checkpoints / f"step-{step}"
    partial = checkpoints / f".step-{step}.partial"

    def prepare() -> None:
        if ranks.is_first:
            for replaced in checkpoints.glob(f".step-*{_REPLACED}"):
                if not (name := checkpoints / replaced.name[1 : -len(_REPLACED)]).exists():
                    os.replace(replaced, name)  # of a run that was killed before the new one was in its place
            for remains in checkpoints.glob(".step-*"):  # of a run that was killed
                shutil.rmtree(remains)
            partial.mkdir(parents=True)

    def finish() -> None:
        if ranks.is_first:
            together = {file: value for part in sums for file, value in json.loads(part).items()}
            manifest = {"format": FORMAT, "step": step, **describe(), "sha256": together}
            write_checked_json(partial / MANIFEST, manifest)
            older = hide(final, _REPLACED) if final.exists() else None
            os.replace(partial, final)
            sync_directory(checkpoints)
            if older is not None:  # only now that the new one is in its place
                shutil.rmtree(older)

    ranks.together(prepare)
    sums = ranks.gather_texts(json.dumps(ranks.together(lambda: write(partial))))
    ranks.together(finish)
    return final


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file through to the disk; return its SHA-256. Raises UserError if it cannot be written."""
    try:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
    except SafetensorError as error:
        raise UserError(f"cannot write {path}: {error}") from None
    with naming(path), open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def hide(checkpoint: Path, ending: str = _REMOVED) -> Path:
    """Rename a checkpoint to what is never taken for one; return that."""
    hidden = checkpoint.with_name(f".{checkpoint.name}{ending}")
    os.replace(checkpoint, hidden)
    return hidden
