"""Checkpoints: safetensors files and a JSON manifest, in a directory that is renamed into place when it is complete.

    checkpoints/step-500/
        manifest.json                        step, progress, tables, scalars, and each file's SHA-256
        core.safetensors                     the replicated model and its optimizer's state, written by rank 0
        source_table-0-of-4.safetensors      rank 0's rows, and the rows of its optimizer's state; and so on
        source_vocabulary.txt, …             both sides' files, if they change while they are trained, as on a stream

A table is loaded on any number of ranks and in either layout: each rank picks its rows out of the old shards.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dist_s2s import UserError
from dist_s2s.distributed import Ranks
from dist_s2s.sharded import DistributedEmbedding
from dist_s2s.sharded.tables.optimizer_state import row_state
from dist_s2s.storage.durable_files import (
    check_sha256,
    naming,
    read_checked_json,
    sha256_of,
    sync_directory,
    write_checked_json,
    write_durably,
)
from dist_s2s.storage.table_rows import load_rows, shard_file
from dist_s2s.storage.training_state import TrainingState, load_optimizer, replicated_tensors, saved_state, scalars

MANIFEST = "manifest.json"
FORMAT = 2  # 1 had no checksum of the manifest itself
_TENSORS = ".safetensors"


def save_checkpoint(
    checkpoints: Path,
    state: TrainingState,
    step: int,
    progress: dict[str, Any],
    ranks: Ranks,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write ``checkpoints/step-N`` (collective). Until its last moment the directory has another name.

    Args:
        progress: JSON values to be given back on resume.
        files: content by name of what else belongs to this step, such as vocabularies that change; the first rank's.

    Raises:
        UserError: on every rank, if any of them cannot write.
    """
    final = checkpoints / f"step-{step}"
    partial = checkpoints / f".step-{step}.partial"

    def prepare() -> None:
        if ranks.is_first:
            for remains in checkpoints.glob(".step-*"):  # of a run that was killed
                shutil.rmtree(remains)
            partial.mkdir(parents=True)

    def write() -> dict[str, str]:
        sums = {}
        for name, table in state.tables.items():
            rows = row_state(state.table_optimizer, table.weight)
            file = shard_file(name, ranks.rank, ranks.world_size)
            sums[file] = _save_tensors(partial / file, {"weight": table.weight.detach(), **rows})
        if ranks.is_first:
            sums["core.safetensors"] = _save_tensors(partial / "core.safetensors", replicated_tensors(state))
            for name, content in (files or {}).items():
                write_durably(partial / name, content)
                sums[name] = sha256_of(partial / name)
        return sums

    ranks.together(prepare)
    sums = ranks.gather_texts(json.dumps(ranks.together(write)))

    def publish() -> None:
        if ranks.is_first:
            manifest = {
                "format": FORMAT,
                "step": step,
                "progress": progress,
                "tables": {name: _describe(table) for name, table in state.tables.items()},
                "scalars": scalars(state),
                "sha256": {file: value for part in sums for file, value in json.loads(part).items()},
            }
            write_checked_json(partial / MANIFEST, manifest)
            older = _hide(final) if final.exists() else None
            os.replace(partial, final)
            sync_directory(checkpoints)
            if older is not None:  # only now that the new one is in its place
                shutil.rmtree(older)

    ranks.together(publish)
    return final


def save_progress(checkpoint: Path, progress: dict[str, Any]) -> None:
    """Replace what a checkpoint says of progress, where its step has been validated since it was written."""
    write_checked_json(checkpoint / MANIFEST, {**read_manifest(checkpoint), "progress": progress})


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return complete checkpoints, oldest first."""
    found = [path for path in checkpoints.glob("step-*") if (path / MANIFEST).is_file() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file through to the disk; return its SHA-256. Raises UserError if it cannot be written."""
    try:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
    except SafetensorError as error:
        raise UserError(f"cannot write {path}: {error}") from None
    with naming(path), open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete it under another name, so that what is left after a kill is never taken for a checkpoint."""
    shutil.rmtree(_hide(checkpoint))


def _hide(checkpoint: Path) -> Path:
    hidden = checkpoint.with_name(f".{checkpoint.name}.old")
    os.replace(checkpoint, hidden)
    return hidden


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint. Raises UserError if it is missing, damaged or of another format."""
    try:
        manifest = read_checked_json(checkpoint / MANIFEST)
    except FileNotFoundError:
        raise UserError(f"{checkpoint} is not a checkpoint: it has no {MANIFEST}") from None
    if manifest.get("format") not in (1, FORMAT):
        raise UserError(f"{checkpoint} has format {manifest.get('format')}, but this version reads 1 to {FORMAT}")
    missing = {"step", "progress", "tables", "scalars", "sha256"} - manifest.keys()
    if missing:
        raise UserError(f"{checkpoint / MANIFEST} is damaged: it lacks {', '.join(sorted(missing))}")
    return manifest


def table_of_side(manifest: Mapping[str, Any], side: str) -> str:
    """Return the name of the table that has the rows of "source" or "target": of both, if a run has one for both."""
    name = f"{side}_table"
    return name if name in manifest["tables"] else "target_table"


def text_directory(checkpoint: Path) -> Path:
    """Return where the text files that belong to a checkpoint are: there, if it has its own, or else with its run.

    Raises:
        UserError: if one of its own is damaged or missing.
    """
    sums = read_manifest(checkpoint)["sha256"]
    own = [name for name in sums if not name.endswith(_TENSORS)]
    for name in own:
        check_sha256(checkpoint / name, sums[name])
    return checkpoint if own else checkpoint.parent.parent


def load_weights(checkpoint: Path, core: nn.Module, tables: Mapping[str, DistributedEmbedding]) -> None:
    """Load the model alone. Calls no collectives. Raises UserError for a file that is missing or damaged."""
    manifest = read_manifest(checkpoint)
    _load_core(checkpoint, core, core_tensors(checkpoint, manifest))
    for name, table in tables.items():
        load_rows(checkpoint, manifest, name, table, only_weight=True)


def load_training_state(checkpoint: Path, state: TrainingState) -> dict[str, Any]:
    """Load the model and its optimizers, on any number of ranks; return the manifest. Calls no collectives."""
    manifest = read_manifest(checkpoint)
    tensors = core_tensors(checkpoint, manifest)
    _load_core(checkpoint, state.core, tensors)
    core_state = saved_state("core_optimizer", tensors, manifest["scalars"])
    load_optimizer(state.core_optimizer, core_state)
    table_state = saved_state("table_optimizer", tensors, manifest["scalars"])
    for number, (name, table) in enumerate(state.tables.items()):
        rows = load_rows(checkpoint, manifest, name, table, only_weight=False)
        if rows:
            table_state.setdefault(number, {}).update(rows)
    load_optimizer(state.table_optimizer, table_state)
    return manifest


def _load_core(checkpoint: Path, core: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        core.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise UserError(f"{checkpoint} holds another model: {reasons}") from None


def core_tensors(checkpoint: Path, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the replicated part, see ``replicated_tensors``. Raises UserError for a damaged file."""
    check_sha256(checkpoint / "core.safetensors", manifest["sha256"].get("core.safetensors"))
    return load_file(checkpoint / "core.safetensors")


def _describe(table: DistributedEmbedding) -> dict[str, Any]:
    partition = table.partition
    return {
        "num_embeddings": table.num_embeddings,
        "embedding_dim": table.embedding_dim,
        "layout": partition.layout,
        "world_size": partition.num_shards,
    }
